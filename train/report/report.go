// Package report writes what a run did: metrics.jsonl, one object a line.
package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// File is the name of the log in a run's directory.
const File = "metrics.jsonl"

// A Record is one line: of an update, or of an evaluation after it (Metrics).
type Record struct {
	Step     int                `json:"step"`
	Epoch    int                `json:"epoch,omitempty"`
	Loss     *float64           `json:"loss,omitempty"`
	Penalty  float64            `json:"penalty,omitempty"` // minimised beside the loss
	GradNorm *float64           `json:"grad_norm,omitempty"`
	LR       *float64           `json:"lr,omitempty"`
	Seqs     int                `json:"seqs,omitempty"`
	Tokens   int                `json:"tokens,omitempty"`
	Seconds  float64            `json:"seconds,omitempty"`
	Metrics  map[string]float64 `json:"metrics,omitempty"`
	Ranks    *Ranks             `json:"ranks,omitempty"`
	Experts  *Experts           `json:"experts,omitempty"`
	// Loads is the share of each expert in what its layer's router chose for the last batch, by module.
	Loads map[string][]float64 `json:"loads,omitempty"`
}

// Experts is how the routers of all layers used their experts for a batch.
type Experts struct {
	Load    float64 `json:"load"`    // of the most used expert, by the mean of its layer: 1 where all are used alike; mean over layers
	Entropy float64 `json:"entropy"` // of routers' probabilities, in nats; mean over layers
	Dead    int     `json:"dead"`    // experts that no row chose, over all layers
	All     int     `json:"all"`     // experts of all layers
}

// Ranks is what is left of an adapter whose ranks are dropped while it is trained.
type Ranks struct {
	Left    int            `json:"left"`
	All     int            `json:"all"`
	Modules map[string]int `json:"modules"` // left, by module
}

// A Log appends records to a file. A nil Log drops them.
type Log struct{ f *os.File }

// Open opens the log at path and drops what was written after step last: a resumed run writes those
// steps again. A line that was torn off when the process died is dropped too.
func Open(path string, last int) (*Log, error) {
	keep, err := keepUntil(path, last)
	if err != nil {
		return nil, fmt.Errorf("report: %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	if err = f.Truncate(keep); err == nil {
		_, err = f.Seek(keep, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("report: %w", err), f.Close())
	}
	return &Log{f}, nil
}

// keepUntil is the length of the part of a log up to step last.
func keepUntil(path string, last int) (int64, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	keep := 0
	for line := range bytes.Lines(b) {
		var r Record
		if line[len(line)-1] != '\n' || json.Unmarshal(line, &r) != nil || r.Step > last {
			break
		}
		keep += len(line)
	}
	return int64(keep), nil
}

// Step appends a record and hands it to the operating system.
func (l *Log) Step(r Record) error {
	if l == nil {
		return nil
	}
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("report: step %d: %w", r.Step, err)
	}
	if _, err = l.f.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// Sync waits until the records are on the disk.
func (l *Log) Sync() error {
	if l == nil {
		return nil
	}
	if err := l.f.Sync(); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// Close closes the file.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	return l.f.Close()
}

// Read returns the records of a log. A last line without its end is passed over: it is being written, or
// its writer died.
func Read(path string) ([]Record, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	var out []Record
	n := 0
	for line := range bytes.Lines(b) {
		n++
		if line[len(line)-1] != '\n' {
			break
		}
		var r Record
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("report: %s:%d: %w", path, n, err)
		}
		out = append(out, r)
	}
	return out, nil
}
