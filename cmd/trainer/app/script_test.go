package app

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"trainer": func() { os.Exit(Main(Builtin())) }})
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

func runScripts(t *testing.T, dir string) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", dir),
		Setup: func(e *testscript.Env) error {
			e.Setenv("HF_HUB_OFFLINE", "1")
			e.Setenv("HOME", e.WorkDir)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"tinymodel":  tinyModel,
			"collection": collection,
			"exits":      exits,
			"tear":       tear,
			"killed":     killed,
			"listing":    listing_,
			"stopped":    stopped,
		},
	})
}
