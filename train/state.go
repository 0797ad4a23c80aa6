package train

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"rung/checkpoints"
	"rung/data"
	"rung/nn/backend/host"
	"rung/nn/graph"
	"rung/train/privacy"
	"rung/train/report"
)

// stateDir holds what resuming needs, under Config.Out.
const stateDir = "state"

// meta is the part of a saved state that is no tensor.
type meta struct {
	Version     int             `json:"version"`
	Position    position        `json:"position"`
	MicroTokens int             `json:"micro_tokens"`
	Config      json.RawMessage `json:"config"`
	Objective   string          `json:"objective"`
	Model       string          `json:"model"`             // fingerprints
	Adapter     json.RawMessage `json:"adapter,omitempty"` // its settings
	digests
	Backend string       `json:"backend"`
	Ledger  privacy.Mark `json:"ledger,omitzero"` // with privacy
	Trail   trail        `json:"trail,omitzero"`  // with privacy
}

// digests identify what a run reads, encoded, and what its sampler draws from that.
type digests struct {
	Train string `json:"data"`
	Dev   string `json:"dev"` // "" where no checkpoint is chosen by it
	Draws string `json:"draws"`
}

// free are the settings that may differ when a run is resumed: none changes what is learned, or the
// user asks for the difference in so many words.
var free = []string{"Out", "Resume", "Device", "Backend", "Memory", "EvalEvery", "SaveEvery", "Metrics", "Sampler"}

// takeOut locks the run's directory. Without resume it must not hold a run already.
func (r *Run) takeOut() error {
	if r.cfg.Out == "" {
		if r.cfg.Resume {
			return errors.New("train: resume needs the directory of the run")
		}
		return nil
	}
	if err := os.MkdirAll(r.cfg.Out, 0o777); err != nil {
		return fmt.Errorf("train: output directory: %w", err)
	}
	var err error
	if r.lock, err = checkpoints.Lock(r.cfg.Out); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	if r.cfg.Resume {
		return cmp.Or(r.sameKind(), r.begunAnew())
	}
	for _, name := range []string{stateDir, privacy.Dir, report.File, "best", "last"} {
		if _, err := os.Stat(filepath.Join(r.cfg.Out, name)); err == nil {
			return fmt.Errorf("train: %s holds a run already (%s): resume it, or choose another directory", r.cfg.Out, name)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("train: output directory: %w", err)
		}
	}
	return nil
}

// sameKind refuses to resume with privacy a run without, or the other way round: its state would not be found, and what
// it wrote would be replaced.
func (r *Run) sameKind() error {
	other, what := privacy.Dir, "has privacy, which the configuration has not"
	if r.cfg.Privacy != nil {
		other, what = stateDir, "is without privacy, which the configuration has"
	}
	switch _, err := os.Stat(filepath.Join(r.cfg.Out, other)); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("train: resume: %w", err)
	}
	return fmt.Errorf("train: resume %s: the run there %s (%s)", r.cfg.Out, what, other)
}

// begunAnew refuses to resume a run that has ended and whose state is gone: what it wrote would be replaced.
func (r *Run) begunAnew() error {
	if r.cfg.Privacy != nil { // its ledger knows
		return nil
	}
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(r.cfg.Out, name))
		return err == nil
	}
	if exists("last") && !exists(stateDir) {
		return fmt.Errorf("train: resume %s: the run there has ended (last), but its state is gone: choose another directory", r.cfg.Out)
	}
	return nil
}

// stateDir is where the training state is: with privacy, among what must not leave the machine.
func (r *Run) stateDir() string {
	if r.private != nil {
		return filepath.Join(r.cfg.Out, privacy.Dir, stateDir)
	}
	return filepath.Join(r.cfg.Out, stateDir)
}

func (r *Run) openLog() error {
	if r.cfg.Out == "" {
		return nil
	}
	var err error
	r.log, err = report.Open(filepath.Join(r.cfg.Out, report.File), r.pos.Step)
	return err
}

// saveModel writes what opens again: the directory best or last.
func (r *Run) saveModel(name string) error {
	if r.cfg.Out == "" {
		return nil
	}
	return checkpoints.Save(context.WithoutCancel(r.ctx), filepath.Join(r.cfg.Out, name), func(tmp string) error { return r.model.Save(tmp, r.store) })
}

// saveState writes weights, moments and position, after the log of what they come from. Whoever cancels
// the run waits for it: it is short, and would only have to be done again.
func (r *Run) saveState() error {
	if r.cfg.Out == "" {
		return nil
	}
	r.saved = time.Now()
	if err := r.log.Sync(); err != nil {
		return err
	}
	m := r.meta()
	raw, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("train: state: %w", err)
	}
	s := checkpoints.State{Meta: raw}
	for _, g := range r.store.Seg {
		if !g.Trainable {
			continue
		}
		v, err := graph.ViewWeight[float32](r.store, g.Path)
		if err == nil {
			err = add(&s, g.Path, g.Dims, v)
		}
		for _, mo := range r.opt.moments {
			if err != nil {
				break
			}
			if v, err = graph.ViewLike[float32](r.store, mo.mem, g.Path); err == nil {
				err = add(&s, g.Path+"#"+mo.name, g.Dims, v)
			}
		}
		if err != nil {
			return fmt.Errorf("train: state: %w", err)
		}
	}
	return checkpoints.SaveState(context.WithoutCancel(r.ctx), r.stateDir(), s)
}

func add(s *checkpoints.State, name string, dims []int, v []float32) error {
	t, err := checkpoints.NewTensor(name, dims, v)
	if err == nil {
		s.Tensors = append(s.Tensors, t)
	}
	return err
}

func (r *Run) meta() meta {
	c, _ := json.Marshal(settings(&r.cfg))
	m := meta{
		Version: 2, Position: r.pos, Config: c, Objective: fmt.Sprintf("%s %+v", r.obj.Name(), r.obj), Model: r.model.Fingerprint(),
		digests: r.digests, Backend: r.be.Name(),
	}
	if a, ok := r.model.(interface{ Settings() map[string]any }); ok && a.Settings() != nil {
		m.Adapter, _ = json.Marshal(a.Settings())
	}
	if r.plan != nil {
		m.MicroTokens = r.plan.budget
	}
	if r.private != nil {
		m.Trail = r.private.trail
		if r.private.ledger != nil {
			m.Ledger = r.private.ledger.Mark()
		}
	}
	return m
}

// settings are the fields of a config that decide what is learned, by name.
func settings(c *Config) map[string]any {
	out := map[string]any{}
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if slices.Contains(free, f.Name) || v.Field(i).Kind() == reflect.Pointer && v.Field(i).IsNil() {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "" || name == "-" {
			name = asKey(f.Name)
		}
		out[name] = v.Field(i).Interface()
	}
	return out
}

// openState reads the last state, if the run is to be resumed and there is one.
func (r *Run) openState() (meta, error) {
	if !r.cfg.Resume {
		return meta{}, nil
	}
	dir := r.stateDir()
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return meta{}, nil // killed before the first was saved
	}
	s, err := checkpoints.OpenState(dir)
	if err != nil {
		return meta{}, fmt.Errorf("train: resume: %w", err)
	}
	defer s.Close()
	var m meta
	if err := json.Unmarshal(s.Meta, &m); err != nil {
		return m, fmt.Errorf("train: resume: %s: %w", dir, err)
	}
	if err := r.same(m); err != nil {
		return m, fmt.Errorf("train: resume %s: %w", r.cfg.Out, err)
	}
	if err := r.load(s); err != nil {
		return m, fmt.Errorf("train: resume %s: %w", r.cfg.Out, err)
	}
	r.pos = m.Position
	if err := r.findBest(); err != nil {
		return m, err
	}
	if m.Backend != r.be.Name() {
		r.warnings = append(r.warnings, fmt.Sprintf("resumed on %s, was on %s: what follows agrees to rounding, not bit for bit", r.be.Name(), m.Backend))
	}
	return m, nil
}

// asKey is the name of a field as a configuration writes it: KeepBest is keep_best.
func asKey(name string) string {
	var b strings.Builder
	for i, c := range name {
		if unicode.IsUpper(c) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return b.String()
}

// findBest forgets a best checkpoint that somebody has removed: the best of what follows takes its place.
func (r *Run) findBest() error {
	if r.pos.BestStep == 0 {
		return nil
	}
	_, err := os.Stat(filepath.Join(r.Best(), checkpoints.ManifestFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.warnings = append(r.warnings, fmt.Sprintf("the best checkpoint, of step %d, is gone from %s: the best of what follows takes its place", r.pos.BestStep, r.Best()))
		r.pos.Best, r.pos.BestStep, r.pos.Worse = 0, 0, 0
	case err != nil:
		return fmt.Errorf("train: resume: the best checkpoint: %w", err)
	}
	return nil
}

// same refuses a state of another run, and names what differs.
func (r *Run) same(m meta) error {
	now := r.meta()
	if m.Version != now.Version {
		return fmt.Errorf("the state is of version %d, want %d", m.Version, now.Version)
	}
	keys, err := changed("", m.Config, now.Config)
	if err != nil {
		return err
	}
	if m.Objective != now.Objective {
		keys = append(keys, fmt.Sprintf("loss (was %s, is %s)", m.Objective, now.Objective))
	}
	if m.Model != now.Model {
		what, err := changed("adapter.", m.Adapter, now.Adapter)
		if err != nil || len(what) == 0 {
			what = []string{"the model or its adapter"}
		}
		keys = append(keys, what...)
	}
	if m.Train != now.Train {
		keys = append(keys, "the training data")
	}
	if m.Dev != now.Dev {
		keys = append(keys, "the dev data")
	}
	if len(keys) == 0 && m.Draws != now.Draws {
		keys = append(keys, "the batches that the sampler "+r.sample.Name()+" draws")
	}
	if len(keys) > 0 {
		return fmt.Errorf("the configuration has changed: %s", strings.Join(keys, "; "))
	}
	return nil
}

// changed names the settings that differ, each with both values.
func changed(prefix string, was, is json.RawMessage) (keys []string, err error) {
	var a, b map[string]json.RawMessage // as they are written: a float64 cannot tell large seeds apart
	if err := errors.Join(json.Unmarshal(was, &a), json.Unmarshal(is, &b)); err != nil {
		return nil, err
	}
	for _, k := range slices.Sorted(maps.Keys(b)) {
		if !bytes.Equal(a[k], b[k]) {
			keys = append(keys, fmt.Sprintf("%s%s (was %s, is %s)", prefix, k, a[k], b[k]))
		}
	}
	return keys, nil
}

// load gives the store and the optimiser the values of a state.
func (r *Run) load(s *checkpoints.State) error {
	for _, g := range r.store.Seg {
		if !g.Trainable {
			continue
		}
		v, err := tensor(s, g.Path)
		if err == nil {
			err = graph.WriteWeight(r.store, g.Path, v)
		}
		for _, mo := range r.opt.moments {
			if err != nil {
				break
			}
			if v, err = tensor(s, g.Path+"#"+mo.name); err == nil {
				err = graph.WriteLike(r.store, mo.mem, g.Path, v)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func tensor(s *checkpoints.State, name string) ([]float32, error) {
	t, err := s.Tensor(name)
	if err != nil {
		return nil, err
	}
	return checkpoints.Float32s(t)
}

// digest identifies the data of the run and its batches.
func (r *Run) digest(batches [][]int) digests {
	d := digests{Train: digestOf(r.train)}
	if r.dev != nil && r.cfg.KeepBest != "" {
		d.Dev = digestOf(r.dev)
	}
	if r.private != nil { // by the secret, which the ledger knows
		return d
	}
	h := sha256.New()
	var b []byte
	for _, units := range batches {
		b = binary.LittleEndian.AppendUint64(b[:0], uint64(len(units)))
		for _, u := range units {
			b = binary.LittleEndian.AppendUint64(b, uint64(u))
		}
		h.Write(b)
	}
	d.Draws = hex.EncodeToString(h.Sum(nil))
	return d
}

// digestOf identifies encoded data: token ids, candidates and labels.
func digestOf(e *data.Encoded) string {
	h := sha256.New()
	for s := range e.First {
		_ = binary.Write(h, binary.LittleEndian, int64(e.Len(int32(s))))
	}
	h.Write(host.Bytes(e.IDs))
	h.Write(host.Bytes(e.First))
	h.Write(host.Bytes(e.Keys))
	for i := range e.Units {
		u := &e.Units[i]
		_ = binary.Write(h, binary.LittleEndian, []int64{int64(len(u.ID)), int64(u.Query), int64(len(u.Seqs))})
		h.Write([]byte(u.ID))
		h.Write(host.Bytes(u.Seqs))
		h.Write(host.Bytes(u.Labels))
		if e.Owners > 0 {
			_ = binary.Write(h, binary.LittleEndian, u.Owner)
		}
		if u.Domain != 0 {
			_ = binary.Write(h, binary.LittleEndian, u.Domain)
		}
		for _, id := range u.IDs { // evaluations break ties by them
			_ = binary.Write(h, binary.LittleEndian, int64(len(id)))
			h.Write([]byte(id))
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}
