package train

import (
	"time"

	"rung/nn/backend"
)

// A Trace is told of each call of a step what it did and how long it took.
type Trace func(c *backend.Call, w backend.Work, d time.Duration)

// Trace has later steps report their calls to f, those of the update too; nil ends that. False: the
// backend does not measure them, or there are no later steps.
func (r *Run) Trace(f Trace) bool {
	t, ok := r.opt.exec.(backend.Tracer)
	if !ok || r.run == nil {
		return false
	}
	r.traced = f != nil
	if f == nil {
		t.Trace(nil)
		return r.run.Trace(nil)
	}
	t.Trace(func(i int, d time.Duration) { c := &r.opt.calls[i]; f(c, c.Work(&backend.Sizes{}), d) })
	return r.run.Trace(func(i int, d time.Duration) { c := &r.plan.program.Calls[i]; f(c, c.Work(&r.sizes), d) })
}
