package checkpoints

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLockAdmitsOne(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "runs", "out")
	l, err := Lock(dir)
	require.NoError(t, err)
	host, err := os.Hostname()
	require.NoError(t, err)
	_, err = Lock(dir)
	require.EqualError(t, err, fmt.Sprintf("checkpoints: lock %s: another writer has it: process %d on %s", dir, os.Getpid(), host))
	require.NoError(t, l.Close())
	require.NoError(t, l.Close())
	l, err = Lock(dir)
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

func TestLockOfAnotherProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	cmd := childCommand(t, "lock", dir)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	_, err = Lock(dir)
	require.ErrorContains(t, err, fmt.Sprintf("another writer has it: process %d on ", cmd.Process.Pid))
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	l, err := Lock(dir)
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

func TestLockOutlivesSaveOfItsDirectory(t *testing.T) {
	for _, noExchange := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "out")
		l, err := Lock(dir)
		require.NoError(t, err)
		s := &saver{noExchange: noExchange}
		for _, v := range []string{"old", "new"} {
			require.NoError(t, s.save(context.Background(), dir, writeVersion(v)))
			require.Equal(t, v, version(t, dir))
			_, err = Lock(dir)
			require.ErrorContains(t, err, "another writer has it")
		}
		require.NoError(t, l.Close())
	}
}

func TestLockCleansUp(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	put(t, dir, ".best.tmp-0123456789abcdef/model.safetensors", "half")
	put(t, dir, ".last.old-0123456789abcdef/model.safetensors", "whole")
	l, err := Lock(dir)
	require.NoError(t, err)
	require.Equal(t, []string{".lock", "last"}, names(t, dir))
	require.NoError(t, l.Close())
}

func TestLockRefuses(t *testing.T) {
	root := t.TempDir()
	file := put(t, root, "file", "")
	_, err := Lock(file)
	require.ErrorContains(t, err, "it is a file")
	target := put(t, root, "precious", "data")
	dir := filepath.Join(root, "out")
	symlink(t, target, filepath.Join(dir, lockFile))
	_, err = Lock(dir)
	require.Error(t, err)
	b, err := os.ReadFile(target)
	require.NoError(t, err)
	require.Equal(t, "data", string(b))
}
