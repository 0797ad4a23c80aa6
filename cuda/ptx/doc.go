// Package ptx executes PTX on the CPU: the text that NVRTC compiles CUDA kernels to, and that a driver takes. A kernel runs
// over its whole grid, a warp of 32 threads at a time, and every access is checked. It is an independent look at what is
// committed, not at the source, and it needs no GPU.
//
// A launch ends with a [Fault] where a thread
//   - touches memory outside an allocation, not aligned to its size, freed, or read before anything wrote it;
//   - races for a byte of shared or global memory: two threads touch it, one of them writes, and no barrier (in other blocks:
//     nothing at all) orders them. Atomic operations do not race with each other, and what a block reads after it has seen
//     another's fence and atomic counter is ordered;
//   - reads shared memory that a cp.async still fills, because a wait_group is missing;
//   - waits at a barrier that the others do not reach, or at a different one, or shuffles from a lane that is not there;
//   - does not end.
//
// What it does not know is an error when the text is parsed, never skipped: see [Parse].
//
// Not modelled: barriers of some of a block's threads (a bar.warp.sync of some lanes orders nothing; named ones are refused),
// clusters, wgmma and what else needs more than sm_80, textures, indirect calls and branches, waiting for another block.
//
// Results differ from a GPU's in the last bits where the architecture leaves them open: .approx functions (with a seed they
// vary within their documented error), the order of sums within mma, and mul followed by add, which ptxas may fuse. It says
// nothing of speed, nor of what ptxas makes of the text.
package ptx
