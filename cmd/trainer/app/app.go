// Package app is the command trainer: configuration, registries, progress and exit codes around the
// packages that do the work.
//
// Results go to the standard output, progress and warnings to the standard error. A command that fails
// says why in one line, "trainer: what and where", and leaves nothing half-written.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"rung/nn/device"
)

// Exit codes.
const (
	Done        = 0
	Failed      = 1
	WrongUse    = 2 // flags, arguments or a configuration that cannot be meant
	Interrupted = 3 // by a signal, and the state of the run is saved
)

// An Env is what a command runs in.
type Env struct {
	Registry Registry
	Stdin    io.Reader
	Stdout   io.Writer
	Stderr   io.Writer
	JSON     bool // results and progress as JSON
}

// echo is how long after the first signal another one is taken for the same: timeout(1) and some job managers
// signal a process and then its whole group.
const echo = 200 * time.Millisecond

// reads marks commands that read files and have nothing to save. One that is told to stop may be waiting
// for a pipe that nobody writes to: it is given up after grace.
var reads = map[string]string{"reads": "files"}

const grace = 2 * time.Second

// Main runs the command line of the process and returns its exit code. The first SIGINT or SIGTERM asks
// the command to stop (a training run saves its state), the second ends the process at once.
func Main(r Registry) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		<-signals
		first := time.Now()
		cancel()
		for range signals {
			if time.Since(first) > echo {
				os.Exit(Failed)
			}
		}
	}()
	e := &Env{Registry: r, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	return e.Run(ctx, os.Args[1:])
}

// Run runs one command line and returns its exit code.
func (e *Env) Run(ctx context.Context, args []string) int {
	root, started := e.root()
	root.SetArgs(args)
	root.SetIn(e.Stdin)
	root.SetOut(e.Stdout)
	root.SetErr(e.Stderr)
	cmd, err := execute(ctx, root, started)
	if err == nil {
		return Done
	}
	var use *useError
	if started.Load() == nil && !errors.As(err, &use) { // cobra's own complaint about flags and arguments
		err = &useError{err, true}
	}
	return e.report(ctx, cmd, err)
}

// execute runs the command, and gives it up grace after ctx has ended if it only reads.
func execute(ctx context.Context, root *cobra.Command, started *atomic.Pointer[cobra.Command]) (*cobra.Command, error) {
	type end struct {
		cmd *cobra.Command
		err error
	}
	ended := make(chan end, 1)
	go func() {
		cmd, err := root.ExecuteContextC(ctx)
		ended <- end{cmd, err}
	}()
	var late <-chan time.Time
	stop := ctx.Done()
	for {
		select {
		case x := <-ended:
			return x.cmd, x.err
		case <-stop:
			if cmd := started.Load(); cmd != nil && cmd.Annotations["reads"] != "" {
				late = time.After(grace)
			}
			stop = nil
		case <-late:
			return root, ctx.Err()
		}
	}
}

// report says in one line what went wrong.
func (e *Env) report(ctx context.Context, cmd *cobra.Command, err error) int {
	var use *useError
	var saved *savedError
	code, message := Failed, oneLine(err.Error())
	switch {
	case errors.As(err, &saved):
		code = Interrupted
	case errors.Is(err, device.ErrUnknown):
		code = WrongUse
	case errors.As(err, &use):
		code = WrongUse
		if !strings.Contains(message, "--help") && use.hint {
			message += fmt.Sprintf(" (%s --help tells more)", cmd.CommandPath())
		}
	case errors.Is(err, syscall.EPIPE): // whoever read the results has seen enough
		return Failed
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		message = "interrupted"
	}
	fmt.Fprintf(e.Stderr, "trainer: %s\n", message)
	return code
}

// A useError is a fault of the command line or of a configuration file.
type useError struct {
	error
	hint bool // the help of the command says how it is meant
}

func (e *useError) Unwrap() error { return e.error }

// misuse makes a useError about flags or arguments.
func misuse(format string, a ...any) error { return &useError{fmt.Errorf(format, a...), true} }

// A savedError ends a run that was interrupted and can be resumed.
type savedError struct{ message string }

func (e *savedError) Error() string { return e.message }

// oneLine is a message without line breaks: joined errors are listed with semicolons.
func oneLine(s string) string {
	var parts []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			parts = append(parts, line)
		}
	}
	return strings.Join(parts, "; ")
}

// note tells the user something on the standard error.
func (e *Env) note(format string, a ...any) {
	if e.JSON {
		e.event("note", "text", fmt.Sprintf(format, a...))
		return
	}
	fmt.Fprintf(e.Stderr, format+"\n", a...)
}

// prefix says which command an error is of.
func prefix(command string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", command, err)
}
