package privacy

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// killed is the variable that makes this test binary a run that kills itself: OUT, and after how many
// bytes and syncs of its ledger, as OUT:N.
const killed = "RUNG_TEST_KILLED_LEDGER"

func TestMain(m *testing.M) {
	if out, at, ok := strings.Cut(os.Getenv(killed), ":"); ok {
		n, _ := strconv.Atoi(at)
		if err := killedRun(out, n); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A mortal file ends the process within a write or at a sync.
type mortal struct {
	file
	left int
}

func (m *mortal) Write(b []byte) (int, error) {
	if len(b) >= m.left {
		_, _ = m.file.Write(b[:m.left])
		die()
	}
	m.left -= len(b)
	return m.file.Write(b)
}

func (m *mortal) Sync() error {
	if m.left--; m.left <= 0 {
		die()
	}
	return m.file.Sync()
}

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// killedRun resumes at the last of the steps that its state has, and takes steps: charge, draw, release.
// Every third step saves the state.
func killedRun(out string, left int) error {
	k, err := OpenKey(out)
	if err != nil {
		return err
	}
	l, err := OpenLedger(out)
	if err != nil {
		return err
	}
	l.f = &mortal{l.f, left}
	from := int64(0)
	if b, err := os.ReadFile(filepath.Join(out, "state")); err == nil {
		from, _ = strconv.ParseInt(string(b), 10, 64)
	}
	released, err := os.OpenFile(filepath.Join(out, "released"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	for s := from; ; s++ {
		d, err := l.Spend(k, charge(k, s))
		if err != nil {
			return err
		}
		z := make([]float64, 8)
		d.Fill(z, 0)
		h := sha256.Sum256(fmt.Append(nil, z, d.Sample(100)))
		if _, err := fmt.Fprintf(released, "%d %x\n", s, h); err != nil {
			return err
		}
		if s%3 == 2 {
			tmp := filepath.Join(out, "state.tmp")
			if err := os.WriteFile(tmp, fmt.Append(nil, s+1), 0o600); err != nil {
				return err
			}
			if err := os.Rename(tmp, filepath.Join(out, "state")); err != nil {
				return err
			}
		}
	}
}

// However a run is killed, what it released is in the ledger, and no step was drawn in two ways.
func TestKilledRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("starts hundreds of processes")
	}
	self, err := os.Executable()
	require.NoError(t, err)
	out := t.TempDir()
	k := NewKey()
	require.NoError(t, k.Keep(out))
	drawn := map[string]string{}
	torn, redone := 0, 0
	for n := range 220 {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), killed+"="+out+":"+strconv.Itoa(1+n*17%1500))
		said, err := cmd.CombinedOutput()
		require.Error(t, err)
		require.Equal(t, -1, cmd.ProcessState.ExitCode(), "not killed: %s", said)

		b, err := os.ReadFile(filepath.Join(out, Dir, ledgerFile))
		require.NoError(t, err)
		if !bytes.HasSuffix(b, []byte("\n")) {
			torn++
		}
		l, _, err := readLedger("ledger", bytes.NewReader(b))
		require.NoError(t, err)
		b, err = os.ReadFile(filepath.Join(out, "released"))
		if err != nil {
			continue
		}
		seen := map[string]bool{}
		for line := range strings.Lines(string(b)) {
			step, value, _ := strings.Cut(line, " ")
			if was, ok := drawn[step]; ok {
				require.Equal(t, was, value, "step %s has two draws", step)
			}
			drawn[step] = value
			if seen[step] {
				redone++
			}
			seen[step] = true
			s, err := strconv.ParseInt(step, 10, 64)
			require.NoError(t, err)
			require.True(t, l.Charged(charge(k, s)), "step %s was released and is not charged", step)
		}
		require.GreaterOrEqual(t, len(l.Charges()), len(seen))
		require.LessOrEqual(t, len(l.Charges()), len(seen)+1, "steps redone with the key count once")
	}
	require.Greater(t, torn, 50)
	require.Greater(t, redone, 50)
	require.Greater(t, len(drawn), 50)
}
