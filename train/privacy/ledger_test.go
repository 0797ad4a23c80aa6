package privacy

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func open(t *testing.T, out string) *Ledger {
	t.Helper()
	l, err := OpenLedger(out)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

func pay(t *testing.T, l *Ledger, c Charge, fresh bool) {
	t.Helper()
	got, err := l.Charge(c)
	require.NoError(t, err)
	require.Equal(t, fresh, got, "step %d", c.Step)
	require.True(t, l.Charged(c))
}

func TestLedgerCounts(t *testing.T) {
	out := t.TempDir()
	k := Insecure(1)
	l := open(t, out)
	for s := range int64(5) {
		pay(t, l, charge(k, s), true)
	}
	mark := l.Mark()
	pay(t, l, charge(k, 5), true)
	require.Equal(t, []Phase{{.05, 1.1, 6}}, l.Phases())
	require.NoError(t, l.Close())

	// resumed at step 3, with the key: what was charged counts once
	l = open(t, out)
	require.NoError(t, l.Verify(mark), "more lines than the state knows are what a kill leaves")
	for s := int64(3); s < 7; s++ {
		pay(t, l, charge(k, s), s == 6)
	}
	require.Equal(t, []Phase{{.05, 1.1, 7}}, l.Phases())
	// without the key, or with anything else changed, it counts again
	pay(t, l, charge(Insecure(2), 6), true)
	other := charge(k, 6)
	other.Context = "other data"
	pay(t, l, other, true)
	other.Sigma = 1.5
	pay(t, l, other, true)
	require.Equal(t, []Phase{{.05, 1.1, 9}, {.05, 1.5, 1}}, l.Phases())
	require.Len(t, l.Charges(), 10)
	require.False(t, l.Charged(charge(k, 99)))
	require.NoError(t, l.Close())
	_, err := l.Charge(charge(k, 100))
	require.Error(t, err)

	l = open(t, out)
	require.Equal(t, []Phase{{.05, 1.1, 9}, {.05, 1.5, 1}}, l.Phases())
	bad := charge(k, 1)
	bad.Clip = -1
	_, err = l.Charge(bad)
	require.ErrorContains(t, err, "clipping norm -1")
	pay(t, l, charge(k, 50), true)
}

func TestLedgerHasOneWriter(t *testing.T) {
	out := t.TempDir()
	l := open(t, out)
	_, err := OpenLedger(out)
	require.ErrorContains(t, err, "another process has it open")
	require.NoError(t, l.Close())
	require.NoError(t, l.Close())
	require.NoError(t, open(t, out).Close())
	st, err := os.Stat(filepath.Join(out, Dir, ledgerFile))
	require.NoError(t, err)
	require.EqualValues(t, 0o600, st.Mode().Perm())
	require.NoError(t, os.Chmod(filepath.Join(out, Dir), 0o755))
	_, err = OpenLedger(out)
	require.ErrorContains(t, err, "mode 0755")
}

// ledgerOf makes a ledger of n steps and returns its path.
func ledgerOf(t *testing.T, n int64) (out, path string, mark Mark) {
	out = t.TempDir()
	l := open(t, out)
	for s := range n {
		pay(t, l, charge(Insecure(1), s), true)
	}
	mark = l.Mark()
	require.NoError(t, l.Close())
	return out, filepath.Join(out, Dir, ledgerFile), mark
}

func TestLedgerThatWasChanged(t *testing.T) {
	for name, c := range map[string]struct {
		change func(lines [][]byte) [][]byte
		want   string
	}{
		"a number":        {func(l [][]byte) [][]byte { l[4] = bytes.Replace(l[4], []byte("1.1"), []byte("9.9"), 1); return l }, ":6: does not follow"},
		"the last number": {func(l [][]byte) [][]byte { l[8] = bytes.Replace(l[8], []byte("1.1"), []byte("9.9"), 1); return l }, ":9: not the line that was there"},
		"taken out":       {func(l [][]byte) [][]byte { return append(l[:4], l[5:]...) }, ":5: does not follow"},
		"the first":       {func(l [][]byte) [][]byte { return l[1:] }, ":1: not the first line"},
		"twice":           {func(l [][]byte) [][]byte { return append(l[:5], l[4:]...) }, ":6: does not follow"},
		"swapped":         {func(l [][]byte) [][]byte { l[3], l[4] = l[4], l[3]; return l }, ":4: does not follow"},
		"cut off":         {func(l [][]byte) [][]byte { return l[:6] }, ":7: lines are missing: it had 9"},
		"all cut off":     {func([][]byte) [][]byte { return nil }, ":2: lines are missing: it had 9"},
		"torn within":     {func(l [][]byte) [][]byte { l[4] = l[4][:30]; return l }, ":5: no line of a ledger"},
		"a space":         {func(l [][]byte) [][]byte { l[4] = append(l[4], ' '); return l }, ":5: not as it was written"},
		"an empty line":   {func(l [][]byte) [][]byte { l[4] = nil; return l }, ":5: no line of a ledger"},
		"a field":         {func(l [][]byte) [][]byte { l[4] = append([]byte(`{"x":1,`), l[4][1:]...); return l }, ":5: no line of a ledger"},
		"null":            {func(l [][]byte) [][]byte { l[4] = []byte("null"); return l }, ":5: not as it was written"},
		"a version":       {func(l [][]byte) [][]byte { l[0] = []byte(`{"ledger":2,"run":"x"}`); return l }, ":1: not the first line"},
		"very long":       {func(l [][]byte) [][]byte { l[4] = bytes.Repeat([]byte("x"), 3000); return l }, ":5: a line of more than 2048 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			out, path, mark := ledgerOf(t, 8)
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			lines := bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
			require.Len(t, lines, 9)
			changed := c.change(lines)
			b = bytes.Join(changed, []byte("\n"))
			if len(changed) > 0 {
				b = append(b, '\n')
			}
			require.NoError(t, os.WriteFile(path, b, 0o600))
			l, err := OpenLedger(out)
			if err == nil {
				defer l.Close()
				err = l.Verify(mark)
			}
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestLedgerOfAnotherRun(t *testing.T) {
	_, _, mark := ledgerOf(t, 3)
	out, _, own := ledgerOf(t, 3)
	l := open(t, out)
	require.ErrorContains(t, l.Verify(mark), "another run's ledger")
	require.NoError(t, l.Verify(own))
	require.ErrorContains(t, l.Verify(Mark{}), "no mark")
	require.ErrorContains(t, l.Verify(Mark{-1, "x"}), "no mark")
}

// Wherever the last line is torn, the ledger opens, goes on, and counts every line that was whole.
func TestLedgerThatWasTorn(t *testing.T) {
	out, path, _ := ledgerOf(t, 2)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	for n := range len(whole) + 1 {
		require.NoError(t, os.WriteFile(path, whole[:n], 0o600))
		l, err := OpenLedger(out)
		require.NoError(t, err, "%d bytes", n)
		steps := int64(len(l.Charges()))
		ended := int64(max(0, bytes.Count(whole[:n], []byte("\n"))-1))
		require.GreaterOrEqual(t, steps, ended, "%d bytes: under-counted", n)
		require.LessOrEqual(t, steps, ended+1, "%d bytes", n)
		pay(t, l, charge(Insecure(1), 77), true)
		require.NoError(t, l.Close())
		l, err = OpenLedger(out)
		require.NoError(t, err, "%d bytes", n)
		require.Len(t, l.Charges(), int(steps)+1)
		require.NoError(t, l.Close())
	}
	// what a crash may leave after the end: zeros
	require.NoError(t, os.WriteFile(path, append(bytes.Clone(whole), make([]byte, 500)...), 0o600))
	l := open(t, out)
	require.Len(t, l.Charges(), 2)
}

// A write that fails charges nothing, and nothing can follow it.
func TestLedgerOnAFullDisk(t *testing.T) {
	for _, sync := range []bool{false, true} {
		out, _, _ := ledgerOf(t, 3)
		l := open(t, out)
		l.f = &failing{file: l.f, sync: sync}
		_, err := l.Charge(charge(Insecure(1), 10))
		require.ErrorContains(t, err, "step 10 is not charged: no space")
		require.False(t, l.Charged(charge(Insecure(1), 10)))
		_, err = l.Charge(charge(Insecure(1), 11))
		require.ErrorContains(t, err, "step 10 is not charged")
	}
}

type failing struct {
	file
	sync bool
}

func (f *failing) Write(b []byte) (int, error) {
	if f.sync {
		return f.file.Write(b)
	}
	n, _ := f.file.Write(b[:len(b)/2])
	return n, fmt.Errorf("no space")
}

func (f *failing) Sync() error { return fmt.Errorf("no space") }

func FuzzLedger(f *testing.F) {
	first := `{"ledger":1,"run":"00"}`
	f.Add([]byte(first + "\n"))
	f.Add([]byte(first + "\n" + `{"previous":"00","step":1,"q":0.1,"sigma":1,"clip":1,"key":"k","domain":"d","context":""}` + "\n"))
	f.Add([]byte("null\n{}\n\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, end, err := readLedger("ledger", bytes.NewReader(b))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "ledger:") || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%q names no line", err)
			}
			return
		}
		if end.bytes > int64(len(b)) || end.torn && end.unended {
			t.Fatalf("%+v of %d bytes", end, len(b))
		}
		// what is read is what would be written
		again, more, err := readLedger("ledger", bytes.NewReader(b[:end.bytes]))
		if err != nil || again.Mark() != l.Mark() || more.torn {
			t.Fatalf("%v %+v", err, more)
		}
		if _, err := Epsilon(spent(l.Phases())[:min(1, len(spent(l.Phases())))], 1e-5); err != nil {
			t.Fatal(err)
		}
	})
}
