/** `trampolab/node`: what needs a file system or a native library. */
export { bootLab, labBooter, type LabBooter, type LabOptions } from './boot.js';
export { kernelAsm, PACKAGE_ROOT, readAsm, readInput, writeOutput } from './files.js';
