package privacy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("RUNG_TEST_SPENDER"); dir != "" {
		if err := spender(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const spenderSteps = 60

// spender is a run in small: for each step it writes the ledger, publishes what it draws, and every fourth step saves
// how far it is. It goes on from there, and dies whenever it is killed.
func spender(dir string) error {
	private := filepath.Join(dir, "private")
	k, err := OpenKey(private)
	if errors.Is(err, fs.ErrNotExist) {
		if k, err = NewKey(); err == nil {
			err = k.Save(private)
		}
	}
	if err != nil {
		return err
	}
	l, err := OpenLedger(private)
	if err != nil {
		return err
	}
	defer l.Close()
	state := filepath.Join(dir, "state")
	from := 0
	if b, err := os.ReadFile(state); err == nil {
		if from, err = strconv.Atoi(string(b)); err != nil {
			return err
		}
	}
	out, err := os.OpenFile(filepath.Join(dir, "published"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	d := k.Draws("test")
	for step := from; step < spenderSteps; step++ {
		if err := l.Spend(Spending{uint64(step), d.ID(), .5, 1, 1}); err != nil {
			return err
		}
		z := make([]float32, 4)
		d.Noise(uint64(step), z)
		if _, err := fmt.Fprintf(out, "%d %v %v;\n", step, d.Sample(uint64(step), .5, 10), z); err != nil {
			return err
		}
		if step%4 == 3 {
			tmp := state + ".tmp"
			if err := os.WriteFile(tmp, []byte(strconv.Itoa(step+1)), 0o600); err != nil {
				return err
			}
			if err := os.Rename(tmp, state); err != nil {
				return err
			}
		}
	}
	return nil
}

// Killed at two hundred moments and resumed, no step that was published is missing from the ledger, none is there
// twice, and none had two different draws.
func TestKilled(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	dir, kills := t.TempDir(), 0
	check := func(dir string) (steps int) {
		l, err := OpenLedger(filepath.Join(dir, "private"))
		require.NoError(t, err)
		defer l.Close()
		seen := map[string]string{}
		b, err := os.ReadFile(filepath.Join(dir, "published"))
		require.NoError(t, err)
		for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
			step, draw, _ := strings.Cut(s.Text(), " ")
			if !strings.HasSuffix(draw, ";") {
				continue // torn
			}
			n, err := strconv.Atoi(step)
			require.NoError(t, err)
			require.True(t, l.Spent(uint64(n), l.lines[0].Draws), "step %s was published and not written", step)
			if before, ok := seen[step]; ok {
				require.Equal(t, before, draw, "step %s was drawn twice", step)
			}
			seen[step] = draw
		}
		phases := l.Phases()
		require.Len(t, phases, 1)
		require.GreaterOrEqual(t, int(phases[0].Steps), len(seen))
		require.LessOrEqual(t, int(phases[0].Steps), spenderSteps)
		return len(seen)
	}
	began := time.Now()
	for i := 0; kills < 200 && time.Since(began) < 2*time.Minute; i++ {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), "RUNG_TEST_SPENDER="+dir)
		var said bytes.Buffer
		cmd.Stderr = &said
		require.NoError(t, cmd.Start())
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case err := <-done:
			require.NoError(t, err, said.String())
			require.Equal(t, spenderSteps, check(dir))
			dir = t.TempDir() // a new run
		case <-time.After(time.Duration(2000+i*97%9000) * time.Microsecond):
			_ = cmd.Process.Kill()
			<-done
			kills++
			if _, err := os.Stat(filepath.Join(dir, "published")); err == nil {
				check(dir)
			}
		}
	}
	require.Equal(t, 200, kills)
}

// filled is a ledger of n steps and its bytes.
func filled(t *testing.T, n int) (dir string, text []byte) {
	dir = filepath.Join(t.TempDir(), "private")
	l, err := OpenLedger(dir)
	require.NoError(t, err)
	for s := range n {
		require.NoError(t, l.Spend(Spending{uint64(s), "d", .25, 1.5, 1}))
	}
	require.NoError(t, l.Close())
	text, err = os.ReadFile(filepath.Join(dir, ledgerFile))
	require.NoError(t, err)
	return dir, text
}

func TestLedger(t *testing.T) {
	dir, text := filled(t, 5)
	l, err := OpenLedger(dir)
	require.NoError(t, err)
	require.Equal(t, []Phase{{.25, 1.5, 5}}, l.Phases())
	mark := l.Mark()
	require.NoError(t, l.Follows(mark))
	require.NoError(t, l.Follows(Mark{}))
	require.NoError(t, l.Spend(Spending{2, "d", .25, 1.5, 1}), "again: the same result")
	require.Equal(t, mark, l.Mark())
	require.NoError(t, l.Spend(Spending{2, "e", .25, 1.5, 1}), "by other draws it counts again")
	require.Equal(t, int64(6), l.Phases()[0].Steps)
	require.NoError(t, l.Follows(mark))
	require.ErrorContains(t, l.Spend(Spending{3, "d", .25, 1.2, 1}), "step 3: it was taken with q 0.25, σ 1.5, C 1, and is to be taken with q 0.25, σ 1.2, C 1")
	require.Error(t, l.Spend(Spending{9, "d", .25, 1.5, 1}), "after an error nothing is written")
	require.NoError(t, l.Close())

	other, _ := filled(t, 7)
	o, err := OpenLedger(other)
	require.NoError(t, err)
	require.NoError(t, o.Follows(mark), "the same lines")
	require.ErrorContains(t, o.Follows(Mark{8, "x"}), "it was cut, or is another run's")
	require.ErrorContains(t, o.Follows(Mark{5, "x"}), "it was cut, or is another run's")
	require.NoError(t, o.Close())

	// torn at every byte of the last line: that step was not taken
	last := bytes.LastIndexByte(text[:len(text)-1], '\n') + 1
	for cut := last; cut < len(text); cut++ {
		for _, tail := range []string{"", "\x00\x00\x00"} {
			path := filepath.Join(dir, ledgerFile)
			require.NoError(t, os.WriteFile(path, append(append([]byte{}, text[:cut]...), tail...), 0o600))
			l, err := OpenLedger(dir)
			require.NoError(t, err)
			require.Equal(t, int64(4), l.Phases()[0].Steps)
			require.NoError(t, l.Spend(Spending{4, "d", .25, 1.5, 1}))
			require.NoError(t, l.Close())
			got, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, text, got)
		}
	}
}

// Lines that were changed, taken out, put in or moved are found, with their number.
func TestTampered(t *testing.T) {
	dir, text := filled(t, 6)
	lines := bytes.SplitAfter(text, []byte("\n"))[:6]
	join := func(l ...[]byte) []byte { return bytes.Join(l, nil) }
	for name, c := range map[string]struct {
		text []byte
		want string
	}{
		"σ":          {bytes.Replace(text, []byte(`"sigma":1.5`), []byte(`"sigma":2.5`), 1), "line 2: does not follow"},
		"taken out":  {join(lines[0], lines[1], lines[3], lines[4], lines[5]), "line 3: does not follow"},
		"first gone": {join(lines[1:]...), "line 1: does not follow"},
		"twice":      {join(lines[0], lines[0], lines[1]), "line 2: does not follow"},
		"moved":      {join(lines[0], lines[2], lines[1]), "line 2: does not follow"},
		"no JSON":    {join(lines[0], []byte("x\n"), lines[1]), "line 2: no line of a ledger"},
		"more":       {join(lines[0][:len(lines[0])-1], []byte("{}\n")), "line 1: no line of a ledger"},
		"unknown":    {[]byte(`{"step":0,"draws":"d","q":0.5,"sigma":1,"clip":1,"prev":"","x":1}` + "\n"), "line 1: no line of a ledger"},
		"no step":    {[]byte(`{"step":0,"draws":"d","q":2,"sigma":1,"clip":1,"prev":""}` + "\n"), "line 1: q 2, σ 1, C 1: no step"},
		"no draws":   {[]byte(`{"step":0,"draws":"","q":0.5,"sigma":1,"clip":1,"prev":""}` + "\n"), "no step"},
		"long":       {append(bytes.Repeat([]byte(" "), maxLine+1), '\n'), "line 1: too long"},
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, ledgerFile), c.text, 0o600))
		_, err := OpenLedger(dir)
		require.ErrorContains(t, err, c.want, name)
		after, err := os.ReadFile(filepath.Join(dir, ledgerFile))
		require.NoError(t, err)
		require.Equal(t, c.text, after, "what is refused is left as it is")
	}
	require.NoError(t, os.Chmod(filepath.Join(dir, ledgerFile), 0o644))
	_, err := OpenLedger(dir)
	require.ErrorContains(t, err, "others may use it")
}

func FuzzLedger(f *testing.F) {
	f.Add([]byte(`{"step":0,"draws":"d","q":0.5,"sigma":1,"clip":1,"prev":""}` + "\n"))
	f.Add([]byte("{}\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l := &Ledger{spent: map[drawn]int{}}
		end, err := l.read(b)
		if err != nil {
			return
		}
		if end > len(b) || end < len(b) && bytes.IndexByte(b[end:], '\n') >= 0 || bytes.Count(b[:end], []byte("\n")) != len(l.lines) {
			t.Fatalf("%d of %d bytes, %d lines", end, len(b), len(l.lines))
		}
	})
}
