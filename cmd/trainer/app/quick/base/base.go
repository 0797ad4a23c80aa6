// Package base is the encoder that the quickstart begins with, and how it was made: a BERT of two
// layers that knows a made-up language (package lingua) from its texts alone.
package base

// Seed is that of the language, and of the pre-training.
const Seed = 1
