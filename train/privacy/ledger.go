package privacy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// ledgerFile is the ledger in its directory: a line of JSON for each draw.
const ledgerFile = "ledger.jsonl"

// maxLine bounds a line: a longer one is no ledger's.
const maxLine = 4096

// A Spending is one line of a ledger: a step whose noisy result may have been seen.
type Spending struct {
	Step  uint64  `json:"step"`  // counted from 0
	Draws string  `json:"draws"` // by whose chances: Draws.ID
	Q     float64 `json:"q"`
	Sigma float64 `json:"sigma"`
	Clip  float64 `json:"clip"`
}

// line is a Spending with the hash of the line before it.
type line struct {
	Spending
	Prev string `json:"prev"`
}

// A Mark is a place in a ledger: what a training state remembers of it.
type Mark struct {
	Lines int    `json:"lines"`
	Hash  string `json:"hash"` // of the last of them, "" of none
}

// A Ledger is the record of what was spent, written before it is: a line is on the disk before the noisy result of its
// step exists. Lines are chained by hashes, so that one that was changed, taken out or put in is found. A last line
// without its end is one that was being written when the process died: its step was not taken, and it is dropped.
//
// It is for one writer, who holds the lock of the run's directory.
type Ledger struct {
	path  string
	f     *os.File
	lines []Spending
	marks []string      // hash of each line
	spent map[drawn]int // which line
	err   error         // after a write that failed nothing more is written
}

// drawn is what is drawn once: the same step by the same draws has the same result.
type drawn struct {
	step  uint64
	draws string
}

// OpenLedger opens the ledger in dir, which it makes if there is none.
func OpenLedger(dir string) (*Ledger, error) {
	l := &Ledger{path: filepath.Join(dir, ledgerFile), spent: map[drawn]int{}}
	if err := l.open(dir); err != nil {
		if l.f != nil {
			_ = l.f.Close()
		}
		return nil, fmt.Errorf("privacy: ledger: %w", err)
	}
	return l, nil
}

func (l *Ledger) open(dir string) error {
	if err := MakeDir(dir); err != nil {
		return err
	}
	err := secret(l.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	made := err != nil
	if l.f, err = os.OpenFile(l.path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	b, err := io.ReadAll(l.f)
	if err != nil {
		return err
	}
	end, err := l.read(b)
	if err != nil {
		return fmt.Errorf("%s: %w", l.path, err)
	}
	if end < len(b) {
		err = l.f.Truncate(int64(end))
	}
	if err == nil {
		_, err = l.f.Seek(int64(end), io.SeekStart)
	}
	if err == nil && (made || end < len(b)) {
		err = errors.Join(l.f.Sync(), syncDir(dir))
	}
	return err
}

// read takes whole lines and returns where they end.
func (l *Ledger) read(b []byte) (end int, err error) {
	for n := 1; end < len(b); n++ {
		i := bytes.IndexByte(b[end:], '\n')
		if i < 0 {
			break // torn
		}
		text := b[end : end+i]
		var x line
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		switch {
		case len(text) > maxLine:
			return end, fmt.Errorf("line %d: too long: it is no ledger's", n)
		case d.Decode(&x) != nil || d.More():
			return end, fmt.Errorf("line %d: no line of a ledger: it was damaged or edited", n)
		case x.Prev != l.head():
			return end, fmt.Errorf("line %d: does not follow the line before it: lines were changed, taken out or put in", n)
		case check([]Phase{{x.Q, x.Sigma, 1}}) != nil || !(x.Clip > 0) || x.Draws == "":
			return end, fmt.Errorf("line %d: q %g, σ %g, C %g: no step", n, x.Q, x.Sigma, x.Clip)
		}
		k := drawn{x.Step, x.Draws}
		if _, twice := l.spent[k]; twice {
			return end, fmt.Errorf("line %d: step %d is there twice", n, x.Step)
		}
		l.add(x.Spending, text)
		end += i + 1
	}
	return end, nil
}

func (l *Ledger) add(s Spending, text []byte) {
	h := sha256.Sum256(text)
	l.marks = append(l.marks, hex.EncodeToString(h[:]))
	l.spent[drawn{s.Step, s.Draws}] = len(l.lines)
	l.lines = append(l.lines, s)
}

func (l *Ledger) head() string {
	if len(l.marks) == 0 {
		return ""
	}
	return l.marks[len(l.marks)-1]
}

// Spend writes that a step is taken, and returns when that is on the disk. What was spent already, by the same draws, is
// not spent again: the result is the same. It is an error if q, σ or C were others then.
func (l *Ledger) Spend(s Spending) error {
	if l.err != nil {
		return l.err
	}
	fail := func(err error) error {
		l.err = fmt.Errorf("privacy: ledger: %s: step %d: %w", l.path, s.Step, err)
		return l.err
	}
	if i, ok := l.spent[drawn{s.Step, s.Draws}]; ok {
		if before := l.lines[i]; before != s {
			return fail(fmt.Errorf("it was taken with q %g, σ %g, C %g, and is to be taken with q %g, σ %g, C %g", before.Q, before.Sigma, before.Clip, s.Q, s.Sigma, s.Clip))
		}
		return nil
	}
	if err := check([]Phase{{s.Q, s.Sigma, 1}}); err != nil {
		return fail(err)
	}
	b, err := json.Marshal(line{s, l.head()})
	if err != nil {
		return fail(err)
	}
	if _, err := l.f.Write(append(b, '\n')); err != nil {
		return fail(err)
	}
	if err := l.f.Sync(); err != nil {
		return fail(err)
	}
	l.add(s, b)
	return nil
}

// Spent reports that a step was taken by these draws.
func (l *Ledger) Spent(step uint64, draws string) bool {
	_, ok := l.spent[drawn{step, draws}]
	return ok
}

// Phases are all that was spent.
func (l *Ledger) Phases() []Phase {
	var out []Phase
	for _, s := range l.lines {
		out = append(out, Phase{s.Q, s.Sigma, 1})
	}
	return spent(out)
}

// Mark is the end of the ledger.
func (l *Ledger) Mark() Mark { return Mark{len(l.marks), l.head()} }

// Follows refuses a ledger that m is no place of: it was cut, or is another run's.
func (l *Ledger) Follows(m Mark) error {
	if m.Lines < 0 || m.Lines > len(l.marks) || m.Lines > 0 && l.marks[m.Lines-1] != m.Hash {
		return fmt.Errorf("privacy: ledger: %s: it is not the one that the training state was saved with: it was cut, or is another run's", l.path)
	}
	return nil
}

// Close closes the file.
func (l *Ledger) Close() error { return l.f.Close() }
