package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// A Report is what was measured on one machine.
type Report struct {
	Device  string   `json:"device"`
	Workers int      `json:"workers"`
	Layers  int      `json:"layers"`
	Hidden  int      `json:"hidden"`
	Cases   []Result `json:"cases"`
}

// A Result is one case. Seqs, Tokens, Seconds and GFLOP are of all its batches once; operators are of one
// batch, on average.
type Result struct {
	Name      string     `json:"name"`
	Seqs      int        `json:"seqs"`
	Tokens    int        `json:"tokens"`
	Seconds   float64    `json:"seconds"`
	GFLOP     float64    `json:"gflop"`
	Peak      float64    `json:"peak_gflop_per_s"` // of all workers, measured beside it; 0: not known
	Share     float64    `json:"share_of_peak"`
	PlanMiB   float64    `json:"plan_mib,omitempty"`
	Operators []Operator `json:"operators,omitempty"`
}

// An Operator is the calls of one kernel at given widths. GByte is what it reads and writes at least.
type Operator struct {
	Name    string  `json:"name"`
	Calls   float64 `json:"calls"`
	Seconds float64 `json:"seconds"`
	GFLOP   float64 `json:"gflop"`
	GByte   float64 `json:"gbyte"`
}

// share sets the share of the peak.
func (r *Result) share() {
	if r.Peak > 0 && r.Seconds > 0 {
		r.Share = r.GFLOP / r.Seconds / r.Peak
	}
}

// Write prints the report. With operators every case has a table of its own.
func (r *Report) Write(w io.Writer, operators bool) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "%s, %d workers, %d layers of %d\n", r.Device, r.Workers, r.Layers, r.Hidden)
	fmt.Fprintln(t, "\tseq/s\ttokens/s\tGFLOP/s\tof peak\tplanned MiB\t")
	for _, c := range r.Cases {
		fmt.Fprintf(t, "%s\t%.1f\t%.0f\t%.1f\t%s\t%s\t\n", c.Name, float64(c.Seqs)/c.Seconds, float64(c.Tokens)/c.Seconds, c.GFLOP/c.Seconds, percent(c.Share), orDash(c.PlanMiB))
	}
	if operators {
		for _, c := range r.Cases {
			c.table(t)
		}
	}
	return t.Flush()
}

func (c *Result) table(w io.Writer) {
	if len(c.Operators) == 0 {
		return
	}
	all := 0.0
	for _, o := range c.Operators {
		all += o.Seconds
	}
	fmt.Fprintf(w, "\n%s, a step of %.2f ms\tcalls\tms\tshare\tGFLOP/s\tof peak\tGB/s\t\n", c.Name, 1e3*all)
	for _, o := range c.Operators {
		rate := o.GFLOP / o.Seconds
		share := "-"
		if c.Peak > 0 && o.GFLOP > 0 {
			share = percent(rate / c.Peak)
		}
		fmt.Fprintf(w, "%s\t%.3g\t%.3f\t%s\t%s\t%s\t%.1f\t\n", o.Name, o.Calls, 1e3*o.Seconds, percent(o.Seconds/all), orDash(rate), share, o.GByte/o.Seconds)
	}
}

func percent(x float64) string {
	if x == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*x)
}

func orDash(x float64) string {
	if x == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", x)
}

// Read reads a report that was written as JSON.
func Read(r io.Reader) (*Report, error) {
	var o Report
	d := json.NewDecoder(io.LimitReader(r, 16<<20))
	d.DisallowUnknownFields()
	if err := d.Decode(&o); err != nil {
		return nil, fmt.Errorf("bench: not a report of trainer bench: %w", err)
	}
	return &o, nil
}

// Compare prints the time of each case, and of each operator that takes at least a hundredth of it, over
// that of an earlier report. Where both know the machine's peak, times are in its units, so that a slower
// machine or a busier one is no regression.
func (r *Report) Compare(w io.Writer, old *Report) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if old.Device != r.Device || old.Workers != r.Workers || old.Layers != r.Layers || old.Hidden != r.Hidden {
		fmt.Fprintf(t, "the earlier report is of %s, %d workers, %d layers of %d: ratios mean little\n", old.Device, old.Workers, old.Layers, old.Hidden)
	}
	before := map[string]Result{}
	for _, c := range old.Cases {
		before[c.Name] = c
	}
	fmt.Fprintln(t, "time over the earlier one's, below 1 is faster")
	for _, c := range r.Cases {
		b, ok := before[c.Name]
		if !ok {
			fmt.Fprintf(t, "%s\tnew\n", c.Name)
			continue
		}
		speed := 1.0
		if b.Peak > 0 && c.Peak > 0 {
			speed = c.Peak / b.Peak
		}
		fmt.Fprintf(t, "%s\t%.3f\n", c.Name, c.Seconds/b.Seconds*speed)
		ops, all := map[string]Operator{}, 0.0
		for _, o := range b.Operators {
			ops[o.Name] = o
			all += o.Seconds
		}
		for _, o := range c.Operators {
			if p, ok := ops[o.Name]; ok && max(p.Seconds, o.Seconds) > all/100 {
				fmt.Fprintf(t, "%s%s\t%.3f\n", strings.Repeat(" ", 2), o.Name, o.Seconds/p.Seconds*speed)
			}
		}
	}
	return t.Flush()
}
