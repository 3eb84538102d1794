/* Dynptrs of a packet, of a map value, of a ring buffer record. */
#include "kfuncs.h"

#define BPF_MAP_TYPE_RINGBUF 27

struct {
	MAP_UINT(type, BPF_MAP_TYPE_RINGBUF);
	MAP_UINT(max_entries, 4096);
} events SEC(".maps");

struct value {
	u8 bytes[32];
};
MAP(values, BPF_MAP_TYPE_ARRAY, u32, struct value, 1);

u64 seen[16];

/* Reads and writes a header through slices; what is in two pieces would come through the buffer. */
SEC("xdp")
int packet(struct xdp_md *ctx)
{
	struct bpf_dynptr whole;
	u8 buffer[14] = {}, *ethernet, *again;

	if (bpf_dynptr_from_xdp(ctx, 0, &whole))
		return XDP_ABORTED;
	seen[0] = bpf_dynptr_size(&whole);
	ethernet = bpf_dynptr_slice(&whole, 0, buffer, sizeof(buffer));
	if (!ethernet)
		return XDP_DROP;
	seen[1] = ethernet[12] << 8 | ethernet[13];
	again = bpf_dynptr_slice_rdwr(&whole, 0, buffer, sizeof(buffer));
	if (!again)
		return XDP_DROP;
	again[0] = 0xaa;
	if (again == buffer)
		bpf_dynptr_write(&whole, 0, buffer, sizeof(buffer), 0);
	return XDP_PASS;
}

/* Narrowed, copied; the copy keeps what it was. */
SEC("xdp")
int narrowed(struct xdp_md *ctx)
{
	struct bpf_dynptr whole, copy;
	u8 first = 0, second = 0;

	bpf_dynptr_from_xdp(ctx, 0, &whole);
	bpf_dynptr_clone(&whole, &copy);
	seen[0] = bpf_dynptr_adjust(&whole, 2, 10);
	seen[1] = bpf_dynptr_size(&whole);
	seen[2] = bpf_dynptr_size(&copy);
	seen[3] = bpf_dynptr_read(&first, 1, &whole, 1, 0);
	seen[4] = bpf_dynptr_read(&second, 1, &copy, 3, 0);
	seen[5] = first;
	seen[6] = second;
	/* outside, the wrong way round, with flags, of nothing */
	seen[7] = bpf_dynptr_read(&first, 1, &whole, 8, 0);
	seen[8] = bpf_dynptr_adjust(&whole, 5, 4);
	seen[9] = bpf_dynptr_adjust(&whole, 0, 9);
	seen[10] = bpf_dynptr_from_xdp(ctx, 1, &whole);
	seen[11] = bpf_dynptr_is_null(&whole);
	seen[12] = bpf_dynptr_size(&whole);
	seen[13] = bpf_dynptr_is_rdonly(&copy);
	seen[14] = bpf_dynptr_clone(&whole, &copy);
	seen[15] = bpf_dynptr_write(&copy, 0, &first, 1, 0);
	return XDP_PASS;
}

/* The packet's borders move: slices are gone, the dynptr stays. */
SEC("xdp")
int moved(struct xdp_md *ctx)
{
	struct bpf_dynptr whole;
	u8 *byte;

	bpf_dynptr_from_xdp(ctx, 0, &whole);
	if (bpf_xdp_adjust_head(ctx, 4))
		return XDP_ABORTED;
	byte = bpf_dynptr_slice(&whole, 0, 0, 1);
	return byte ? *byte : XDP_DROP;
}

SEC("xdp")
int memory(struct xdp_md *ctx)
{
	struct bpf_dynptr ptr;
	u32 key = 0;
	struct value *value = bpf_map_lookup_elem(&values, &key);
	u8 text[4] = "abc", back[4] = {}, *data;

	if (!value)
		return XDP_ABORTED;
	bpf_dynptr_from_mem(value, sizeof(*value), 0, &ptr);
	seen[0] = bpf_dynptr_write(&ptr, 30, text, 4, 0);
	seen[1] = bpf_dynptr_write(&ptr, 8, text, 4, 0);
	seen[2] = bpf_dynptr_read(back, 4, &ptr, 8, 0);
	seen[3] = back[2];
	data = bpf_dynptr_data(&ptr, 9, 2);
	seen[4] = data ? data[0] : 0;
	data = bpf_dynptr_slice(&ptr, 10, 0, 1);
	seen[5] = data ? *data : 0;
	return XDP_PASS;
}

/* One record is sent, one is not; the third does not fit and is given back all the same. */
SEC("xdp")
int records(struct xdp_md *ctx)
{
	struct bpf_dynptr ptr;
	u64 number = 42, *data;

	seen[0] = bpf_ringbuf_reserve_dynptr(&events, 16, 0, &ptr);
	seen[1] = bpf_dynptr_write(&ptr, 0, &number, 8, 0);
	data = bpf_dynptr_data(&ptr, 8, 8);
	if (data)
		*data = 43;
	bpf_ringbuf_submit_dynptr(&ptr, 0);
	bpf_ringbuf_reserve_dynptr(&events, 8, 0, &ptr);
	bpf_ringbuf_discard_dynptr(&ptr, 0);
	seen[2] = bpf_ringbuf_reserve_dynptr(&events, 8192, 0, &ptr);
	bpf_ringbuf_discard_dynptr(&ptr, 0);
	return XDP_PASS;
}

static NOINLINE int size_of(struct bpf_dynptr *ptr)
{
	return bpf_dynptr_size(ptr);
}

/* A dynptr in the frame of the caller, in a loop. */
SEC("xdp")
int in_loop(struct xdp_md *ctx)
{
	struct bpf_dynptr ptr;
	int i, total = 0;

	bpf_for(i, 0, 4) {
		if (bpf_dynptr_from_xdp(ctx, 0, &ptr))
			return XDP_ABORTED;
		if (bpf_dynptr_adjust(&ptr, 0, i))
			break;
		total += size_of(&ptr);
	}
	return total;
}
LICENSE("GPL");
