package privacy

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// version is of the ledger's format.
const version = 1

// maxLine bounds a line, in bytes: three texts, three numbers, a hash.
const maxLine = 2048

// A line of the ledger: the first has Version and Run, all others Previous and a charge.
type line struct {
	Version  int    `json:"ledger,omitempty"`
	Run      string `json:"run,omitempty"`
	Previous string `json:"previous,omitempty"` // SHA-256 of the line before, without its end
	*Charge
}

func encode(x line) ([]byte, error) {
	b, err := json.Marshal(x)
	if err == nil && len(b) >= maxLine {
		err = fmt.Errorf("a line of %d bytes, above the limit of %d", len(b), maxLine)
	}
	return b, err
}

// key identifies a charge: its draws' identity and the key.
func (c *Charge) key() [32]byte {
	id := c.identity()
	return sha256.Sum256(append(id[:], c.Key...))
}

// An ending is how the bytes of a ledger end.
type ending struct {
	bytes   int64 // of whole lines
	torn    bool  // what follows them is no line
	unended bool  // the last line is whole but for its newline
}

// readLedger reads and checks a ledger. A last line without a newline is no error.
func readLedger(path string, r io.Reader) (*Ledger, ending, error) {
	l := &Ledger{path: path, charges: map[[32]byte]Charge{}}
	var end ending
	in := bufio.NewReaderSize(r, maxLine)
	for {
		b, err := in.ReadSlice('\n')
		switch {
		case err == io.EOF && len(b) == 0:
			return l, end, nil
		case err == io.EOF:
			// killed while writing: whole or not, what comes of it counts no less than what took effect
			if l.accept(b) == nil {
				end.bytes, end.unended = end.bytes+int64(len(b)), true
			} else {
				end.torn = true
			}
			return l, end, nil
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, end, fmt.Errorf("%s:%d: a line of more than %d bytes", path, l.lines+1, maxLine)
		case err != nil:
			return nil, end, fmt.Errorf("%s:%d: %w", path, l.lines+1, err)
		}
		if err := l.accept(b[:len(b)-1]); err != nil {
			return nil, end, fmt.Errorf("%s:%d: %w", path, l.lines+1, err)
		}
		end.bytes += int64(len(b))
	}
}

// accept takes the next line. It is just what this package writes, byte for byte, or refused.
func (l *Ledger) accept(b []byte) error {
	var x line
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&x); err != nil {
		return fmt.Errorf("no line of a ledger: %w", err)
	}
	again, err := encode(x)
	if err != nil || !bytes.Equal(again, b) {
		return errors.New("not as it was written")
	}
	if l.lines == 0 {
		if x.Version != version || x.Run == "" || x.Previous != "" || x.Charge != nil {
			return fmt.Errorf("not the first line of a ledger of version %d", version)
		}
		l.add(b)
		return nil
	}
	switch {
	case x.Charge == nil || x.Version != 0 || x.Run != "":
		return errors.New("no charge")
	case x.Previous != l.last:
		return errors.New("does not follow from the line before: a line was changed, taken out or put in")
	}
	if err := x.check(); err != nil {
		return err
	}
	id := x.key()
	if _, ok := l.charges[id]; ok {
		return fmt.Errorf("step %d is charged twice alike", x.Step)
	}
	l.add(b)
	l.charges[id] = *x.Charge
	l.order = append(l.order, *x.Charge)
	return nil
}

// add notes that b is the last line.
func (l *Ledger) add(b []byte) {
	sum := sha256.Sum256(b)
	l.lines++
	l.last = hex.EncodeToString(sum[:])
	l.hashes = append(l.hashes, l.last)
}
