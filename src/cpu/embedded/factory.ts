import type { CpuFactory } from '../engines.js';
export const embeddedFactory: CpuFactory = { name: 'embedded', create: () => { throw new Error('stub'); } };
