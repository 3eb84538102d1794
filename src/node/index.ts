/** `trampolab/node`: what needs a file system or a native library. */
export { bootLab, labBooter, type LabBooter, type LabOptions } from './boot.js';
export { CaptureFile, type WrittenFrame } from './capture-file.js';
export {
  appendOutput,
  kernelAsm,
  makeFolder,
  naming,
  PACKAGE_ROOT,
  parseInput,
  readAsm,
  readChunks,
  readInput,
  writeOutput,
} from './files.js';
