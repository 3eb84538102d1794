/**
 * The kernel's errno numbers, by name.
 *
 * Reference: include/uapi/asm-generic/errno-base.h, errno.h and include/linux/errno.h
 * (ENOTSUPP 524 is kernel-internal but leaks to user space as -524).
 */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  ENOEXEC: 8,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  EFBIG: 27,
  ENOSPC: 28,
  EPIPE: 32,
  ERANGE: 34,
  EDEADLK: 35,
  ELOOP: 40,
  EPROTO: 71,
  EBADRQC: 56,
  ENODATA: 61,
  EOVERFLOW: 75,
  EMSGSIZE: 90,
  ENOPROTOOPT: 92,
  EPROTONOSUPPORT: 93,
  ESOCKTNOSUPPORT: 94,
  EOPNOTSUPP: 95,
  EAFNOSUPPORT: 97,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETDOWN: 100,
  ENETUNREACH: 101,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ENOBUFS: 105,
  EISCONN: 106,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EALREADY: 114,
  EINPROGRESS: 115,
  ENOTSUPP: 524,
} as const;

export type ErrnoName = keyof typeof ERRNO;

/** The name of an errno number of either sign, or `undefined` when the table has none. */
export function errnoName(value: number): ErrnoName | undefined {
  const magnitude = Math.abs(value);
  for (const [name, number] of Object.entries(ERRNO)) {
    if (number === magnitude) return name as ErrnoName;
  }
  return undefined;
}
