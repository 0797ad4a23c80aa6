package privacy

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ledgerFile is the ledger's name in Dir.
const ledgerFile = "ledger.jsonl"

// A Ledger is what a run has spent, written before it is spent: Charge returns when the line is on the
// disk, and only then may the step take effect. So whatever kills the process, no step has taken effect
// that the ledger lacks; it may have one that took none, which is counted all the same.
//
// A step that is redone after a resume, with the same key and all else equal, draws what it drew before:
// it is the same release and counts once. With a new key, because the old one is lost, or with anything
// else changed, it is another release and counts again.
//
// Each line holds the SHA-256 of the line before it. A line that was changed, taken out or put in is
// found when the ledger is opened; lines missing from the end, and the ledger of another run, are found by
// the Mark in the training state. A last line without its end was torn by a kill: its step took no
// effect, and it is cut off, unless it is whole, when it counts.
//
// A Ledger is for one goroutine. One process has it open: others are refused.
type Ledger struct {
	path    string
	f       file
	lines   int64
	last    string // hash of the last line
	hashes  []string
	charges map[[32]byte]Charge
	order   []Charge
	err     error // of a write: nothing may follow a line that may be torn
}

// A file is what a ledger needs of an os.File.
type file interface {
	io.Writer
	Sync() error
	Close() error
}

// A Mark is a ledger's length and hash at some time. A training state holds it.
type Mark struct {
	Lines int64  `json:"lines"`
	Hash  string `json:"hash"`
}

// OpenLedger opens the ledger of the run whose output directory is out, and makes it where there is none.
func OpenLedger(out string) (*Ledger, error) {
	l, err := openLedger(filepath.Join(out, Dir))
	if err != nil {
		return nil, fmt.Errorf("privacy: ledger: %w", err)
	}
	return l, nil
}

func openLedger(dir string) (*Ledger, error) {
	if err := makePrivate(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, ledgerFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	l, err := takeLedger(path, f)
	if err == nil {
		err = syncDir(dir) // it may be new, or made by a process that was killed before it got here
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

// takeLedger locks and reads the file, and mends its end.
func takeLedger(path string, f *os.File) (*Ledger, error) {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errors.New("another process has it open")
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is no regular file", path))
	}
	l, whole, err := readLedger(path, f)
	if err != nil {
		return nil, err
	}
	l.f = f
	if whole.torn {
		// cut off, or made whole; on the disk before anything relies on it
		if err := f.Truncate(whole.bytes); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
	}
	switch {
	case l.lines == 0:
		err = l.begin()
	case whole.unended:
		err = l.put([]byte{'\n'})
	}
	return l, err
}

// begin writes the first line, which makes every ledger another.
func (l *Ledger) begin() error {
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	b, err := encode(line{Version: version, Run: hex.EncodeToString(id)})
	if err != nil {
		return err
	}
	if err := l.put(append(b, '\n')); err != nil {
		return err
	}
	l.add(b)
	return nil
}

// Charge spends a step: it returns once the charge is on the disk, and tells whether it was new. Where it
// fails, the step must not take effect, and nothing more can be charged.
func (l *Ledger) Charge(c Charge) (fresh bool, err error) {
	if l.err != nil {
		return false, l.err
	}
	if err := c.check(); err != nil {
		return false, err
	}
	id := c.key()
	if _, ok := l.charges[id]; ok {
		return false, nil
	}
	b, err := encode(line{Previous: l.last, Charge: &c})
	if err != nil {
		return false, fmt.Errorf("privacy: ledger: step %d: %w", c.Step, err)
	}
	if err := l.put(append(b, '\n')); err != nil {
		l.err = fmt.Errorf("privacy: ledger: step %d is not charged: %w", c.Step, err)
		return false, l.err
	}
	l.add(b)
	l.charges[id] = c
	l.order = append(l.order, c)
	return true, nil
}

// Spend charges a step to k and returns its draws: what a training step begins with. The charge's Key and
// Domain are filled in.
func (l *Ledger) Spend(k *Key, c Charge) (*Draws, error) {
	c.Key, c.Domain = k.Fingerprint(), Domain
	if _, err := l.Charge(c); err != nil {
		return nil, err
	}
	return k.Draws(c)
}

// put writes and syncs.
func (l *Ledger) put(b []byte) error {
	if l.f == nil {
		return fs.ErrClosed
	}
	n, err := l.f.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err == nil {
		err = l.f.Sync()
	}
	return err
}

// Charged tells whether just this was charged already.
func (l *Ledger) Charged(c Charge) bool {
	_, ok := l.charges[c.key()]
	return ok
}

// Charges are all charges, in the order in which they were made, each once.
func (l *Ledger) Charges() []Charge { return append([]Charge(nil), l.order...) }

// Phases is what has been spent, for an accountant: runs of charges with the same q and σ together.
func (l *Ledger) Phases() []Phase {
	var p []Phase
	for _, c := range l.order {
		if n := len(p); n > 0 && p[n-1].Q == c.Q && p[n-1].Sigma == c.Sigma {
			p[n-1].Steps++
		} else {
			p = append(p, Phase{c.Q, c.Sigma, 1})
		}
	}
	return p
}

// Mark is where the ledger ends now.
func (l *Ledger) Mark() Mark { return Mark{l.lines, l.last} }

// Verify refuses a ledger that does not go on from a mark: it lost lines that were there, or is another
// run's. More lines than the mark has are what a kill leaves.
func (l *Ledger) Verify(m Mark) error {
	switch {
	case m.Lines < 1 || m.Hash == "":
		return fmt.Errorf("privacy: ledger: %s: the training state has no mark of it", l.path)
	case m.Lines > l.lines:
		return fmt.Errorf("privacy: ledger: %s:%d: lines are missing: it had %d when the training state was saved", l.path, l.lines+1, m.Lines)
	case l.hashes[m.Lines-1] != m.Hash:
		return fmt.Errorf("privacy: ledger: %s:%d: not the line that was there when the training state was saved: another run's ledger, or a changed one", l.path, m.Lines)
	}
	return nil
}

// Close gives the ledger up. Closing twice is harmless.
func (l *Ledger) Close() error {
	if l.f == nil {
		return nil
	}
	f := l.f
	l.f = nil
	if err := f.Close(); err != nil {
		return fmt.Errorf("privacy: ledger: %w", err)
	}
	return nil
}
