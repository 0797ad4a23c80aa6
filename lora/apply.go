package lora

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"rung/nn"
)

// An Adapter is what Apply made of a model. It is not for concurrent use.
type Adapter struct {
	given  Config
	cfg    Config // as it is saved: targets, task and modules to save are resolved
	model  Model  // with wrapped layers
	sites  []site // in the order of the model's slots
	params []*nn.Param
	before []original // of the base's parameters
	after  []original // the same while the adapter is taken out
	info   Summary
}

// site is one wrapped layer.
type site struct {
	slot  nn.Slot
	base  *nn.Linear
	layer adapted
	low   *Linear // its A and B; nil: it has none
	pissa *pissa  // nil: A and B do not start from the base's weight
}

// original is a parameter of the base as it was before Apply.
type original struct {
	at  *nn.Param
	was nn.Param
}

// Apply puts adapters into a model and freezes what is not trained with them. The draws are those of
// the seed and the path of each A. After an error the model is as it was.
func Apply(m Model, cfg Config, seed uint64) (*Adapter, error) {
	a, err := apply(m, cfg, seed, true)
	if err != nil {
		return nil, fmt.Errorf("lora: %w", err)
	}
	return a, nil
}

// apply is Apply; without strict, a name may match nothing as long as another does, as in PEFT's files.
func apply(m Model, cfg Config, seed uint64, strict bool) (*Adapter, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	slots, base := m.Slots(), m.Params()
	if len(slots) == 0 {
		return nil, fmt.Errorf("the model has no layer that can be wrapped")
	}
	cfg.Kind, cfg.Bias = cmp.Or(cfg.Kind, Plain), cmp.Or(cfg.Bias, BiasNone)
	a := &Adapter{given: cfg, cfg: cfg, model: m}
	saved, err := a.resolveSaved(base, strict)
	if err != nil {
		return nil, err
	}
	match, err := newMatcher(&cfg, a.cfg.ModulesToSave)
	if err != nil {
		return nil, err
	}
	if slots, err = match.targets(slots, strict); err != nil {
		return nil, err
	}
	if slices.Equal(cfg.Targets, []string{AllLinear}) { // PEFT writes what it stands for
		slots = slices.DeleteFunc(slots, func(s nn.Slot) bool { return saved[s.Path+".weight"] })
		a.cfg.Targets = nil
		for _, s := range slots {
			a.cfg.Targets = append(a.cfg.Targets, s.Path)
		}
		a.cfg.Layers, a.cfg.LayersPattern = nil, nil
	}
	for _, s := range slots {
		l, err := a.newSite(s, match, seed, saved, strict)
		if err != nil {
			return nil, err
		}
		a.sites = append(a.sites, l)
	}
	if len(a.sites) == 0 {
		return nil, fmt.Errorf("no layer is left to adapt: all are trained in full")
	}
	a.wrap(base, saved)
	attach(m, a)
	return a, nil
}

// newSite makes the adapter of one slot.
func (a *Adapter) newSite(s nn.Slot, match *matcher, seed uint64, saved map[string]bool, strict bool) (site, error) {
	base, ok := (*s.Layer).(*nn.Linear)
	if _, twice := (*s.Layer).(adapted); twice {
		return site{}, fmt.Errorf("module %q has an adapter already", s.Path)
	}
	if !ok {
		return site{}, fmt.Errorf("module %q is a %T: only linear layers get an adapter", s.Path, *s.Layer)
	}
	if saved[base.W.Path] {
		// PEFT matches modules to save by the end of their path and fails on such a file.
		return site{}, fmt.Errorf("module %q would be trained in full and through an adapter: a module to save, of %q, is the end of its path; exclude it", s.Path, a.cfg.ModulesToSave)
	}
	if a.cfg.Kind == IA3 {
		return site{slot: s, base: base, layer: newIA3(s.Path, base, match.feedforward(s.Path))}, nil
	}
	rank, alpha := match.size(s.Path)
	limit := min(base.In(), base.Out())
	switch {
	case strict && rank > limit:
		return site{}, fmt.Errorf("rank %d for %q, which is (%d,%d): the rank is at most %d", rank, s.Path, base.Out(), base.In(), limit)
	case a.cfg.Init == InitPiSSA && rank > limit:
		return site{}, fmt.Errorf("rank %d for %q, which is (%d,%d): it has not so many singular values", rank, s.Path, base.Out(), base.In())
	}
	if a.cfg.Kind == Mixture {
		return site{slot: s, base: base, layer: newMixture(s.Path, base, rank, &a.cfg, a.cfg.scale(rank, alpha), seed)}, nil
	}
	low := newLinear(s.Path, base, rank, a.cfg.scale(rank, alpha), &a.cfg, seed)
	made := site{slot: s, base: base, layer: low, low: low}
	switch a.cfg.Kind {
	case DoRA:
		made.layer = newDoRA(low)
	case ALLoRA:
		made.layer = &alloraLinear{low, a.cfg.Eta}
	case Dynamic:
		made.layer = newDynamic(low, a.cfg.Shrink)
	}
	if a.cfg.Init == InitPiSSA {
		made.pissa = newPiSSA(low)
	}
	return made, nil
}

// resolveSaved completes task and modules to save, and returns the paths of the base's parameters that
// are trained in full: all of a module whose path ends with one of the names (PEFT's rule asks for no
// dot before it), and those that no checkpoint had.
func (a *Adapter) resolveSaved(base []*nn.Param, strict bool) (map[string]bool, error) {
	modules := map[string]bool{}
	for _, p := range base {
		for m := moduleOf(p.Path); m != ""; m = moduleOf(m) {
			modules[m] = true
		}
	}
	if a.cfg.Task == TaskAuto {
		a.cfg.Task = TaskEmbed
		if modules[heads[0]] || modules[heads[1]] {
			a.cfg.Task = TaskClassify
		}
	}
	for _, name := range a.cfg.ModulesToSave {
		found := false
		for m := range modules {
			found = found || strings.HasSuffix(m, name)
		}
		if strict && !found {
			return nil, fmt.Errorf("module to save %q is in no module's path", name)
		}
	}
	names := slices.Clone(a.cfg.ModulesToSave)
	for _, p := range base {
		if m := moduleOf(p.Path); p.Created && m != "" && !within(p.Path, names) && !within(p.Path, a.heads()) {
			names = append(names, m)
		}
	}
	a.cfg.ModulesToSave = compact(append(names, a.heads()...))
	saved := map[string]bool{}
	for _, p := range base {
		saved[p.Path] = p.Created || within(p.Path, a.cfg.ModulesToSave)
	}
	return saved, nil
}

// heads are the modules that the task trains in full.
func (a *Adapter) heads() []string {
	if a.cfg.Task == TaskClassify {
		return heads
	}
	return nil
}

// moduleOf is path without its last name.
func moduleOf(path string) string { return path[:max(0, strings.LastIndexByte(path, '.'))] }

// within reports that a parameter is in a module whose path ends with one of names.
func within(path string, names []string) bool {
	for m := moduleOf(path); m != ""; m = moduleOf(m) {
		if slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(m, n) }) {
			return true
		}
	}
	return false
}

// compact drops repeated names and keeps the order.
func compact(names []string) []string {
	var out []string
	for _, n := range names {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// wrap changes the model. Nothing fails from here on.
func (a *Adapter) wrap(base []*nn.Param, saved map[string]bool) {
	bias := map[string]bool{}
	ours := map[*nn.Param]bool{}
	for _, s := range a.sites {
		if l, ok := s.layer.(*MixtureLinear); ok {
			l.share = 1 / float64(len(a.sites))
		}
		*s.slot.Layer = s.layer
		for _, p := range s.layer.own() {
			ours[p] = true
		}
		if s.base.B != nil {
			bias[s.base.B.Path] = a.cfg.Bias == BiasLoRAOnly
		}
	}
	for _, p := range base {
		a.before = append(a.before, original{p, *p})
		isBias := p.Path == "bias" || strings.HasSuffix(p.Path, ".bias")
		p.Trainable = saved[p.Path] || bias[p.Path] || a.cfg.Bias == BiasAll && isBias
	}
	for _, s := range a.sites {
		if s.pissa != nil {
			s.pissa.install()
		}
	}
	a.info = Summary{Kind: a.cfg.Kind}
	for _, p := range a.model.Params() {
		a.info.All += p.Size()
		if !p.Trainable && !ours[p] {
			continue
		}
		a.params = append(a.params, p)
		if p.Trainable {
			a.info.Trainable += p.Size()
		}
		if p.Created {
			a.info.Created = append(a.info.Created, p.Path)
		}
	}
	for _, s := range a.sites {
		a.info.Modules = append(a.info.Modules, s.slot.Path)
	}
}

// Params are the parameters that are trained and travel with the adapter, in the model's order. A store
// of these goes before the base's in Run.Bind.
func (a *Adapter) Params() []*nn.Param { return slices.Clone(a.params) }

// Own are the parameters whose values are the adapter's: Params, and the weights of the base that it changes
// while it is applied (PiSSA). A store of them goes before one of the base.
func (a *Adapter) Own() []*nn.Param {
	out := a.Params()
	for _, s := range a.sites {
		if s.pissa != nil {
			out = append(out, s.base.W)
		}
	}
	return out
}

// Original are the parameters of the base as they were before Apply.
func (a *Adapter) Original() []*nn.Param {
	var out []*nn.Param
	for _, o := range a.before {
		p := o.was
		out = append(out, &p)
	}
	return out
}

// Base are the frozen parameters: what a store of the base must have.
func (a *Adapter) Base() []*nn.Param {
	return slices.DeleteFunc(slices.Clone(a.model.Params()), func(p *nn.Param) bool { return slices.Contains(a.params, p) })
}

// Config is the configuration with targets, task and modules to save as they are saved.
func (a *Adapter) Config() Config { return a.cfg }

// Summary tells what Apply did.
func (a *Adapter) Summary() Summary { return a.info }

// Shape is all that programs of the model for scoring depend on but for the base: adapters of equal shapes differ in
// values, and in what training alone reads, so that one's programs serve the other.
func (a *Adapter) Shape() string {
	var b strings.Builder
	for _, s := range a.sites {
		fmt.Fprintf(&b, "%s\n", s.layer.shape())
	}
	for _, p := range a.params {
		fmt.Fprintf(&b, "%s %v\n", p.Path, p.Dims)
	}
	return b.String()
}

// Remove takes the adapters out: layers and parameters of the base are as they were before Apply.
func (a *Adapter) Remove() {
	a.after = nil
	for _, s := range a.sites {
		*s.slot.Layer = s.base
	}
	for _, o := range a.before {
		a.after = append(a.after, original{o.at, *o.at})
		*o.at = o.was
	}
	attach(a.model, nil)
}

// restore puts adapters that were removed back.
func (a *Adapter) restore() {
	for _, s := range a.sites {
		*s.slot.Layer = s.layer
	}
	for _, o := range a.after {
		*o.at = o.was
	}
	a.after = nil
	attach(a.model, a)
}

// A Summary tells what an adapter changed. Trainable and All count elements.
type Summary struct {
	Kind           string
	Trainable, All int
	Modules        []string // paths of the wrapped layers
	Created        []string // parameters that the base lacks: trained, and saved with the adapter
}

func (s Summary) String() string {
	out := fmt.Sprintf("%s on %d modules: %s of %s parameters are trained (%.2f%%)",
		s.Kind, len(s.Modules), grouped(s.Trainable), grouped(s.All), 100*float64(s.Trainable)/float64(s.All))
	if len(s.Created) > 0 {
		out += "; new, as the base lacks them: " + strings.Join(s.Created, ", ")
	}
	return out
}

// grouped writes n with a comma between thousands.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
