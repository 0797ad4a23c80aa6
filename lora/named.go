package lora

import (
	"fmt"
	"slices"
)

// Named are adapters of one model under names, of which one at most is in it. It is not for concurrent use; package
// rank swaps adapters under load.
type Named struct {
	model  Model
	all    map[string]*Adapter
	active string
}

// NewNamed holds adapters of m, which has none yet.
func NewNamed(m Model) *Named { return &Named{model: m, all: map[string]*Adapter{}} }

// Load adds the adapter of a file under a name. The adapter in use stays in use.
func (n *Named) Load(name string, f *File) error {
	if name == "" {
		return fmt.Errorf("lora: an adapter without a name")
	}
	if n.all[name] != nil {
		return fmt.Errorf("lora: there is an adapter %q already: delete it first", name)
	}
	n.take(nil)
	a, err := f.Apply(n.model)
	if err == nil {
		a.Remove()
		n.all[name] = a
	}
	n.take(n.all[n.active])
	return err
}

// Use puts the adapter of that name into the model, in place of the one that is in it; "" leaves the base alone.
func (n *Named) Use(name string) error {
	a := n.all[name]
	if a == nil && name != "" {
		return fmt.Errorf("lora: no adapter %q, only %q", name, n.Names())
	}
	n.take(a)
	n.active = name
	return nil
}

// take exchanges what is in the model.
func (n *Named) take(a *Adapter) {
	if now := n.all[n.active]; now != nil && now.after == nil {
		now.Remove()
	}
	if a != nil {
		a.restore()
	}
}

// Delete forgets an adapter. If it is in use the model is left without one.
func (n *Named) Delete(name string) error {
	if n.all[name] == nil {
		return fmt.Errorf("lora: no adapter %q, only %q", name, n.Names())
	}
	if name == n.active {
		n.take(nil)
		n.active = ""
	}
	delete(n.all, name)
	return nil
}

// Get is the adapter of a name, nil where there is none.
func (n *Named) Get(name string) *Adapter { return n.all[name] }

// Active is the name of the adapter in use, "" for none.
func (n *Named) Active() string { return n.active }

// Names are the names of all, in order.
func (n *Named) Names() []string { return slices.Clip(sortedKeys(n.all)) }
