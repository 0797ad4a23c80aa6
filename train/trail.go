package train

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"

	"rung/checkpoints"
)

// A trail is what decides the value of a step with privacy beside its number. Two values of the same step that differ,
// with the same noise, would tell of gradients without it: so where any of this changes, so do the draws.
type trail struct {
	How  string `json:"how"`            // digest of what computes the steps at hand
	Past string `json:"past,omitempty"` // of all that computed steps before and was another; "": nothing
}

// context is what the ledger has of it.
func (t trail) context() string { return digested(t.How, t.Past) }

// openTrail goes on with the trail of the state that is resumed. Where device, program or key are others now, the weights
// do not come to where they would have without the change, nor where they would if all had been like this: a run that
// goes from one device to another and back computes, with the first device, steps that it never had.
func (r *Run) openTrail() error {
	v := r.private
	v.trail = trail{How: r.how()}
	if !r.cfg.Resume {
		return nil
	}
	m, err := readMeta(r.stateDir())
	switch {
	case errors.Is(err, fs.ErrNotExist): // killed before the first was saved
		return nil
	case err != nil:
		return fmt.Errorf("train: resume: %w", err)
	}
	if v.trail.Past = m.Trail.Past; m.Trail.How != v.trail.How {
		v.trail.Past = digested(m.Trail.How, m.Trail.Past, m.Position.Step)
	}
	return nil
}

// readMeta reads the part of a state that is no tensor.
func readMeta(dir string) (m meta, err error) {
	if _, err := os.Stat(dir); err != nil {
		return m, err
	}
	s, err := checkpoints.OpenState(dir)
	if err != nil {
		return m, err
	}
	defer s.Close()
	if err := json.Unmarshal(s.Meta, &m); err != nil {
		return m, fmt.Errorf("%s: %w", dir, err)
	}
	return m, nil
}

// how is a digest of what computes the steps of a run.
func (r *Run) how() string {
	how := []any{
		settings(&r.cfg), r.obj.Name(), fmt.Sprintf("%+v", r.obj), r.model.Fingerprint(), digestOf(r.train), r.private.key.Fingerprint(),
		r.be.Name(), runtime.GOARCH, program(),
	}
	if card, ok := r.be.(interface {
		Card() (name string, sms int, memory int64)
	}); ok { // another device of the same number rounds otherwise
		name, sms, memory := card.Card()
		how = append(how, name, sms, memory)
	}
	return digested(how...)
}

// digested is 128 bits of a digest, in hexadecimal.
func digested(of ...any) string {
	b, err := json.Marshal(of)
	if err != nil { // numbers that JSON has not are refused before
		b = fmt.Append(nil, of...)
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:16])
}

// program identifies the program, kernels included, by its own bytes: two builds of one revision can differ in flags, in
// compilers and in what was not committed. Where they cannot be read it is another one every time.
var program = sync.OnceValue(func() string {
	for _, open := range []func() (string, error){
		func() (string, error) { return "/proc/self/exe", nil }, // what runs, though its file may have been replaced
		os.Executable,
	} {
		if path, err := open(); err == nil {
			if sum, err := hashFile(path); err == nil {
				return sum
			}
		}
	}
	return rand.Text()
})

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
