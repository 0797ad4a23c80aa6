package app

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/cwriter"
	"github.com/vbauerster/mpb/v8/decor"

	"rung/train"
)

// linePause is how long plain progress is silent between two lines.
const linePause = 5 * time.Second

// A progress shows a run: a bar on a terminal, plain lines elsewhere, or every step as JSON.
type progress struct {
	env   *Env
	names []string // of measures, in the order of the configuration
	began time.Time
	first int // step before the first of this process
	lines io.Writer
	shown time.Time // the latest plain line

	seqs, tokens int
	seconds      float64
	last         *train.Step // the latest
	evaluated    *train.Evaluation
	best         *train.Step // the latest that was better than all before, of this process

	bars *mpb.Progress
	bar  *mpb.Bar
	text atomic.Pointer[string]
}

func newProgress(e *Env, r *train.Run, measures []string) *progress {
	p := &progress{env: e, names: measures, began: time.Now(), first: r.Done(), lines: e.Stderr}
	if f, ok := e.Stderr.(*os.File); ok && !e.JSON && hasBars(f) && r.Done() < r.Total() {
		p.bars = mpb.New(mpb.WithOutput(f), mpb.WithWidth(40))
		p.bar = p.bars.AddBar(int64(r.Total()), mpb.BarRemoveOnComplete(), mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
			if s := p.text.Load(); s != nil {
				return *s
			}
			return ""
		})))
		p.bar.SetCurrent(int64(r.Done()))
		p.lines = p.bars
	}
	return p
}

// hasBars tells that a file is a terminal with room for a bar.
func hasBars(f *os.File) bool {
	if !cwriter.IsTerminal(int(f.Fd())) {
		return false
	}
	width, _, err := cwriter.GetSize(int(f.Fd()))
	return err == nil && width > 0
}

// step shows a step.
func (p *progress) step(s train.Step) {
	p.seqs, p.tokens, p.seconds = p.seqs+s.Seqs, p.tokens+s.Tokens, p.seconds+s.Seconds
	p.last = &s
	if s.Evaluation != nil {
		p.evaluated = s.Evaluation
		if s.Evaluation.Best {
			p.best = &s
		}
	}
	now := time.Now()
	left := time.Duration(float64(now.Sub(p.began)) / float64(s.N-p.first) * float64(s.Total-s.N))
	switch {
	case p.env.JSON && s.Withheld:
		p.env.event("step", "step", s.N, "total", s.Total, "epoch", s.Epoch, "lr", s.LR, "eta_seconds", left.Round(time.Minute).Seconds())
		p.dev(s)
		return
	case p.env.JSON:
		p.env.event("step", "step", s.N, "total", s.Total, "epoch", s.Epoch, "loss", s.Loss, "grad_norm", s.GradNorm, "lr", s.LR,
			"seqs", s.Seqs, "tokens", s.Tokens, "seconds", s.Seconds, "eta_seconds", left.Seconds())
		p.dev(s)
		return
	case p.bar != nil:
		text := p.line(s, left)
		p.text.Store(&text)
		p.bar.SetCurrent(int64(s.N))
	case p.shown.IsZero() || now.Sub(p.shown) >= linePause || s.N == s.Total || s.Evaluation != nil:
		p.shown = now
		fmt.Fprintln(p.lines, p.line(s, left))
	}
	if e := s.Evaluation; e != nil {
		fmt.Fprintln(p.lines, p.evaluation(s.N, e))
	}
	if k := s.Ranks; k != nil {
		fmt.Fprintf(p.lines, "ranks after step %d: %d of %d left\n", s.N, k.Left, k.All)
	}
}

// dev is an evaluation, and the ranks that are left, as JSON.
func (p *progress) dev(s train.Step) {
	if s.Evaluation != nil {
		p.env.event("evaluation", "step", s.N, "metrics", s.Evaluation.Values, "best", s.Evaluation.Best)
	}
	if s.Ranks != nil {
		p.env.event("ranks", "step", s.N, "left", s.Ranks.Left, "all", s.Ranks.All)
	}
}

// line is one step in words; speeds are means over the steps of this process.
func (p *progress) line(s train.Step, left time.Duration) string {
	if s.Withheld {
		return fmt.Sprintf("step %d/%d  loss withheld (privacy)  ETA %s", s.N, s.Total, left.Round(time.Minute))
	}
	t := max(p.seconds, 1e-9)
	return fmt.Sprintf("step %d/%d  loss %.4f  %.4g seq/s  %.5g tokens/s  ETA %s", s.N, s.Total, s.Loss, float64(p.seqs)/t, float64(p.tokens)/t, left.Round(time.Second))
}

func (p *progress) evaluation(step int, e *train.Evaluation) string {
	var b strings.Builder
	fmt.Fprintf(&b, "dev after step %d:", step)
	for _, n := range p.names {
		fmt.Fprintf(&b, "  %s %.4f", n, e.Values[n])
	}
	if e.Best {
		b.WriteString("  (best so far)")
	}
	return b.String()
}

// done ends the bar.
func (p *progress) done() {
	if p.bar != nil {
		p.bar.Abort(true)
		p.bars.Wait()
	}
}
