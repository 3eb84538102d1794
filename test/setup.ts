/** Runs before each test file; what it imports runs once in a worker, which keeps modules. */
import './helpers/equality.js';
