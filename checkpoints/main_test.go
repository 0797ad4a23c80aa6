package checkpoints

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// The test binary runs itself as a second process where a test needs one that dies or holds a lock.
const childVar = "CHECKPOINTS_TEST_CHILD"

func TestMain(m *testing.M) {
	if job := os.Getenv(childVar); job != "" {
		if err := child(job, os.Getenv(childVar+"_DIR")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func child(job, dir string) error {
	verb, arg, _ := strings.Cut(job, ":")
	switch verb {
	case "kill", "kill-renaming": // dies before its n-th step, as by a power switch
		n, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		s := &saver{noExchange: verb == "kill-renaming"}
		s.before = func(string, string) error {
			if n--; n < 0 {
				return unix.Kill(os.Getpid(), unix.SIGKILL)
			}
			return nil
		}
		return s.save(context.Background(), dir, writeVersion("new"))
	case "full": // may write no file of more than 64 KiB
		signal.Ignore(unix.SIGXFSZ)
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 64 << 10, Max: 64 << 10}); err != nil {
			return err
		}
		return Save(context.Background(), dir, writeVersion("new"))
	case "lock": // holds the lock until it is killed
		if _, err := Lock(dir); err != nil {
			return err
		}
		fmt.Println("locked")
		select {}
	}
	return fmt.Errorf("no job %q", job)
}
