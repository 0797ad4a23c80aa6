// Package checkpoints reads and writes what a model is kept in: safetensors files, directories that
// are replaced whole or not at all, manifests that prove a directory is what was saved, locks, and the
// state of an unfinished training run. It knows no model.
//
// A directory from outside is hostile until parsed: header sizes are checked before anything is
// allocated, tensor ranges for overlap, gaps and overflow, and every file named inside a directory is
// opened through OpenDir, which lets no name and no link lead out of it. Pickle is never read.
//
// What was saved is trusted only as far as its manifest: Verify compares sizes and SHA-256 sums. A
// directory without a manifest was written by another program and opens normally.
package checkpoints

// Names of the files that hold a directory's weights.
const (
	ModelFile   = "model.safetensors"         // a model, as Transformers and sentence-transformers name it
	AdapterFile = "adapter_model.safetensors" // an adapter, as PEFT names it
)
