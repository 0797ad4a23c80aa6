package app

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"rung/checkpoints"
	"rung/rank"
)

// vectorFormats are what vectors are written as.
var vectorFormats = []string{"json", "npy", "safetensors"}

func embedCommand(e *Env) *cobra.Command {
	var m modelFlags
	var role, out, format string
	cmd := &cobra.Command{
		Use:   "embed --model DIR",
		Short: "Texts as vectors: a text a line in; JSON lines, .npy or .safetensors out",
		Long: `Embeds texts with a bi-encoder. Results are one JSON array a line, or an array (N,D) of float32 as
NumPy (.npy) or safetensors (tensor "embeddings") has it; the format is that of --out's name unless --format says.`,
		GroupID: "use",
		Args:    positional(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if role != string(rank.Query) && role != string(rank.Passage) {
				return misuse("--role %q: want query or passage", role)
			}
			if format == "" {
				format = "json"
				if ext := strings.TrimPrefix(filepath.Ext(out), "."); slices.Contains(vectorFormats, ext) {
					format = ext
				}
			}
			if !slices.Contains(vectorFormats, format) {
				return misuse("--format %s%s", format, suggest(format, vectorFormats))
			}
			r, err := m.open(cmd.Context())
			if err != nil {
				return err
			}
			defer r.Close()
			if r.Dim() == 0 {
				return fmt.Errorf("embed: %s is a cross-encoder, which has no vectors", m.model)
			}
			return prefix("embed", e.writeTo(out, func(w io.Writer) error { return e.embed(cmd.Context(), r, rank.Role(role), format, w) }))
		},
	}
	m.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&role, "role", string(rank.Passage), "query or passage: what the texts are to the model")
	f.StringVar(&out, "out", "-", "`FILE` of the vectors; -: the standard output")
	f.StringVar(&format, "format", "", strings.Join(vectorFormats, ", ")+"; \"\": as --out's name says, else json")
	return cmd
}

func (e *Env) embed(ctx context.Context, r *rank.Ranker, role rank.Role, format string, w io.Writer) error {
	var all []float32 // (N,D)
	err := batches(ctx, e.Stdin, inFlight, func(_ int, lines []string) error {
		vs, err := r.Embed(ctx, lines, role)
		if err != nil {
			return err
		}
		for _, v := range vs {
			if format != "json" {
				all = append(all, v...)
				continue
			}
			b, err := json.Marshal(v)
			if err != nil {
				return err
			}
			if _, err := w.Write(append(b, '\n')); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || format == "json" {
		return err
	}
	n := len(all) / r.Dim()
	if format == "npy" {
		return writeNPY(w, n, r.Dim(), all)
	}
	t, err := checkpoints.NewTensor("embeddings", []int{n, r.Dim()}, all)
	if err != nil {
		return err
	}
	return checkpoints.WriteFile(w, []checkpoints.Tensor{t}, nil)
}

// writeNPY writes a (rows,columns) array in NumPy's format, version 1.0: a magic string, the length of the
// header, the header padded so that the data begin at a multiple of 64 bytes, the data.
func writeNPY(w io.Writer, rows, columns int, v []float32) error {
	header := fmt.Sprintf("{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }", rows, columns)
	header += strings.Repeat(" ", 63-(10+len(header))%64) + "\n"
	var b bytes.Buffer
	b.WriteString("\x93NUMPY\x01\x00")
	_ = binary.Write(&b, binary.LittleEndian, uint16(len(header)))
	b.WriteString(header)
	if _, err := w.Write(b.Bytes()); err != nil {
		return err
	}
	return binary.Write(w, binary.LittleEndian, v)
}
