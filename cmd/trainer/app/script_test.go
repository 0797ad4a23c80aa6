package app

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"rung/checkpoints"
	"rung/nn/backend/cpu"
	"rung/nn/backend/philox"
	"rung/nn/nntest/archtest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"trainer": func() { os.Exit(Main(Builtin())) },
		"stubborn": func() { // a trainer whose command sleep does not heed the first signal
			r := Builtin()
			r.Commands["sleep"] = func(e *Env) *cobra.Command {
				return &cobra.Command{Use: "sleep", GroupID: "look", RunE: func(cmd *cobra.Command, _ []string) error {
					fmt.Fprintln(e.Stdout, "asleep")
					<-cmd.Context().Done()
					fmt.Fprintln(e.Stdout, "woken")
					time.Sleep(time.Minute)
					return nil
				}}
			}
			os.Exit(Main(r))
		},
	})
}

// The scripts run the command as a user does, on tiny models and collections that they make.
func TestScripts(t *testing.T) { runScripts(t, "script") }

// What takes longer.
func TestLongScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("many interrupted runs take a while")
	}
	runScripts(t, "long")
}

// tinyModels are the directories that tinymodel copies.
func tinyModels() map[string]archtest.Spec {
	base := archtest.Tiny()
	base.Dropout = .1
	cross, classes, bi := base, base, base
	cross.Labels, classes.Labels = 1, 3
	bi.Pooling, bi.Normalize, bi.Similarity = "mean", true, "cosine"
	wide := base // as GPUs' libraries are given products
	wide.Hidden, wide.FF = 64, 96
	return map[string]archtest.Spec{"base": base, "wide": wide, "cross": cross, "classes": classes, "bi": bi}
}

func runScripts(t *testing.T, dir string) {
	models := t.TempDir()
	locks := &sync.Map{}
	for name, spec := range tinyModels() {
		archtest.Write(t, filepath.Join(models, name), spec)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", dir),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HF_HUB_OFFLINE", "1")
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("XDG_CACHE_HOME", filepath.Join(e.WorkDir, ".cache"))
			e.Setenv("MODELS", models)
			return nil
		},
		Condition: func(name string) (bool, error) {
			switch name {
			case "root": // whom no permission stops
				return os.Getuid() == 0, nil
			case "simd": // else training takes minutes
				isas := cpu.ISAs()
				return len(isas) > 1 && os.Getenv(cpu.Variable) != isas[0], nil
			case "bf16":
				return len(cpu.BF16()) > 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"tinymodel":  tinyModel,
			"collection": collection,
			"exits":      exits,
			"tear":       tear,
			"holds":      holds,
			"killed":     killed,
			"signalled":  signalled,
			"twice":      twice,
			"waiting":    waiting,

			"broken-utf8":  brokenUTF8,
			"long-passage": longPassage,
			"first-line":   firstLine,
			"in-use":       inUse(locks),
			"not-in-use":   notInUse(locks),
		},
	})
}

// tinymodel KIND DIR makes a model directory.
func tinyModel(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: tinymodel KIND DIR")
	}
	ts.Check(os.CopyFS(ts.MkAbs(args[1]), os.DirFS(filepath.Join(ts.Getenv("MODELS"), args[0]))))
}

// collection FILE FROM TO makes queries of the tiny models' words. A passage is relevant if it has the
// query's last word.
func collection(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: collection FILE FROM TO")
	}
	from, err := strconv.Atoi(args[1])
	ts.Check(err)
	to, err := strconv.Atoi(args[2])
	ts.Check(err)
	words := archtest.Tiny().Words
	var b bytes.Buffer
	for q := from; q < to; q++ {
		word := func(k int) string { return words[philox.Uint64(7, "words", uint64(q*100+k))%uint64(len(words))] }
		asked := word(0)
		var passages []string
		for c := range 4 {
			text, label := fmt.Sprint(word(10+c), " ", word(20+c), " ", word(30+c)), 0
			if c == q%4 {
				text, label = fmt.Sprint(word(10+c), " ", asked, " ", word(30+c)), 1
			}
			passages = append(passages, fmt.Sprintf(`{"id":"p%d","text":%q,"label":%d}`, c, text, label))
		}
		fmt.Fprintf(&b, `{"query_id":"q%d","domain":"d%d","query":"where is the %s","candidates":[%s]}`+"\n", q, q%2, asked, strings.Join(passages, ","))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b.Bytes(), 0o666))
}

// exits CODE COMMAND ... runs a command that ends with that code. When that is not 0, it says why in one
// line.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var failed *exec.ExitError
	switch {
	case errors.As(err, &failed):
		got = failed.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	stderr := ts.ReadFile("stderr")
	if got != want {
		ts.Fatalf("exit code %d, want %d: %s", got, want, stderr)
	}
	if n := strings.Count(stderr, "trainer: "); want != 0 && n != 1 {
		ts.Fatalf("%d complaints, want one: %s", n, stderr)
	}
}

// tear FILE cuts a file in the middle.
func tear(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	st, err := os.Stat(path)
	ts.Check(err)
	ts.Check(os.Truncate(path, st.Size()/2))
}

// broken-utf8 FILE writes a row whose text is not valid UTF-8.
func brokenUTF8(ts *testscript.TestScript, _ bool, args []string) {
	row := `{"query_id":"q0","query":"where","candidates":[{"id":"a","text":"the ` + "\xff" + `","label":1}]}`
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(row+"\n"), 0o666))
}

// long-passage FILE WORDS writes a row whose passage has so many words.
func longPassage(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	row := `{"query_id":"q0","query":"where","candidates":[{"id":"a","text":"` + strings.Repeat("river ", n) + `","label":1}]}`
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(row+"\n"), 0o666))
}

// first-line FILE OTHER checks that both begin with the same line.
func firstLine(ts *testscript.TestScript, _ bool, args []string) {
	a, _, _ := strings.Cut(ts.ReadFile(args[0]), "\n")
	b, _, _ := strings.Cut(ts.ReadFile(args[1]), "\n")
	if a != b || a == "" {
		ts.Fatalf("%q and %q", a, b)
	}
}

// in-use DIR takes the lock of a directory.
func inUse(locks *sync.Map) func(ts *testscript.TestScript, _ bool, args []string) {
	return func(ts *testscript.TestScript, _ bool, args []string) {
		l, err := checkpoints.Lock(ts.MkAbs(args[0]))
		ts.Check(err)
		locks.Store(ts.MkAbs(args[0]), l)
	}
}

// not-in-use DIR gives it up.
func notInUse(locks *sync.Map) func(ts *testscript.TestScript, _ bool, args []string) {
	return func(ts *testscript.TestScript, _ bool, args []string) {
		l, _ := locks.LoadAndDelete(ts.MkAbs(args[0]))
		ts.Check(l.(*checkpoints.DirLock).Close())
	}
}

// holds DIR NAME ... checks that a directory holds exactly these files.
func holds(ts *testscript.TestScript, _ bool, args []string) {
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if want := slices.Sorted(slices.Values(args[1:])); !slices.Equal(got, want) {
		ts.Fatalf("%s holds %v, want %v", args[0], got, want)
	}
}

// start starts the trainer in the script's directory.
func start(ts *testscript.TestScript, args []string) (*exec.Cmd, *bytes.Buffer) {
	path, err := exec.LookPath("trainer")
	ts.Check(err)
	cmd := exec.Command(path, args...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), "HF_HUB_OFFLINE=1", "XDG_CACHE_HOME="+ts.Getenv("XDG_CACHE_HOME"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	ts.Check(cmd.Start())
	return cmd, &out
}

// steps is the number of lines of a run's log.
func steps(dir string) int {
	b, _ := os.ReadFile(filepath.Join(dir, "metrics.jsonl"))
	return bytes.Count(b, []byte("\n"))
}

// progressed waits until a run's log has changed, so that its steps go on, and then has so many more lines;
// false: the process has ended.
func progressed(dir string, before, more int, ended <-chan error) bool {
	changed, least := false, 0
	for limit := time.Now().Add(60 * time.Second); time.Now().Before(limit); time.Sleep(time.Millisecond) {
		now := steps(dir)
		if !changed && now != before {
			changed, least = true, now+more
		}
		if changed && now >= least {
			return true
		}
		select {
		case <-ended:
			return false
		default:
		}
	}
	return false
}

// twice runs a command that does not heed its first signal, and checks that the second ends it at once.
func twice(ts *testscript.TestScript, _ bool, _ []string) {
	path, err := exec.LookPath("stubborn")
	ts.Check(err)
	cmd := exec.Command(path, "sleep")
	pipe, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	lines := bufio.NewScanner(pipe)
	for _, want := range []string{"asleep", "woken"} {
		if !lines.Scan() || lines.Text() != want {
			ts.Fatalf("%q, want %q", lines.Text(), want)
		}
		ts.Check(cmd.Process.Signal(syscall.SIGINT))
		time.Sleep(echo + 100*time.Millisecond)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		_ = cmd.Process.Kill()
		ts.Fatalf("the second signal did not end it")
	}
	if code := cmd.ProcessState.ExitCode(); code != Failed {
		ts.Fatalf("exit code %d, want %d", code, Failed)
	}
}

// waiting COMMAND ARG ... runs the trainer with a pipe that nobody writes to, and expects that one signal
// ends it.
func waiting(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(syscall.Mkfifo(ts.MkAbs("pipe"), 0o600))
	cmd, out := start(ts, args)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
		ts.Fatalf("it did not wait: %s", out)
	case <-time.After(500 * time.Millisecond):
	}
	ts.Check(cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		_ = cmd.Process.Kill()
		ts.Fatalf("did not end within 10 s: %s", out)
	}
	if code := cmd.ProcessState.ExitCode(); code != Failed || out.String() != "trainer: interrupted\n" {
		ts.Fatalf("exit code %d, want %d: %s", code, Failed, out)
	}
}

// killed TIMES DIR CONFIG trains into DIR, with SIGKILL so many times at random points, and at last to the
// end. The points are counted in lines of the log, at most forty from one to the next, so that a fast machine
// is not at the end too early.
func killed(ts *testscript.TestScript, _ bool, args []string) {
	times, err := strconv.Atoi(args[0])
	ts.Check(err)
	dir := ts.MkAbs(args[1])
	command := []string{"train", args[2], "--out", args[1], "--resume"}
	for i := range times {
		before := steps(dir)
		cmd, out := start(ts, command)
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		random := philox.Uint64(uint64(os.Getpid()), dir, uint64(i))
		if !progressed(dir, before, int(random%40), ended) {
			ts.Fatalf("kill %d: the run ended, or does nothing: %s", i, out)
		}
		time.Sleep(time.Duration(random >> 32 % uint64(2*time.Millisecond))) // somewhere in a step
		_ = cmd.Process.Kill()
		<-ended
		ts.Logf("killed with %d lines in the log, %d before", steps(dir), before)
	}
	cmd, out := start(ts, command)
	if err := cmd.Wait(); err != nil {
		ts.Fatalf("resumed: %v: %s", err, out)
	}
}

// signalled SIGNAL DIR ARG ... runs the trainer, whose run is in DIR, signals it after its first step, and
// expects exit code 3 within ten seconds.
func signalled(ts *testscript.TestScript, _ bool, args []string) {
	signal := map[string]syscall.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM}[args[0]]
	before := steps(ts.MkAbs(args[1]))
	cmd, out := start(ts, args[2:])
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if !progressed(ts.MkAbs(args[1]), before, 0, ended) {
		ts.Fatalf("no step was done: %s", out)
	}
	for range 2 { // as timeout(1) does, which signals the process and then its group
		ts.Check(cmd.Process.Signal(signal))
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		_ = cmd.Process.Kill()
		ts.Fatalf("did not end within 10 s: %s", out)
	}
	if code := cmd.ProcessState.ExitCode(); code != Interrupted {
		ts.Fatalf("exit code %d, want %d: %s", code, Interrupted, out)
	}
	if !strings.Contains(out.String(), "the state is saved, go on with: trainer train") {
		ts.Fatalf("it does not say how to go on: %s", out)
	}
}
