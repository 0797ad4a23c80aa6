package privacy

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// keyFile holds a key in its directory, as hexadecimal digits and a line end.
const keyFile = "key"

// A Key is the secret that the draws of a run come from: 256 bits. Whoever has it can subtract the noise. Printed, it
// shows its fingerprint.
type Key struct{ secret [32]byte }

// NewKey draws a key from the operating system.
func NewKey() (Key, error) {
	var k Key
	if _, err := rand.Read(k.secret[:]); err != nil {
		return Key{}, fmt.Errorf("privacy: key: %w", err)
	}
	return k, nil
}

// Save writes the key into dir: a directory that is made, for its owner alone, if it does not exist. A key that is there
// already is an error.
func (k Key) Save(dir string) error {
	if err := k.write(dir); err != nil {
		return fmt.Errorf("privacy: key: %w", err)
	}
	return nil
}

// write puts the file in place at once, synced, for its owner alone.
func (k Key) write(dir string) (err error) {
	if err := MakeDir(dir); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, keyFile+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(hex.EncodeToString(k.secret[:]) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), filepath.Join(dir, keyFile)); err != nil { // which replaces nothing
		return err
	}
	return syncDir(dir)
}

// OpenKey reads the key in dir. It wraps fs.ErrNotExist where there is none, and refuses a file that others may read.
func OpenKey(dir string) (Key, error) {
	var k Key
	path := filepath.Join(dir, keyFile)
	if err := secret(path); err != nil {
		return k, fmt.Errorf("privacy: key: %w", err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return k, fmt.Errorf("privacy: key: %w", err)
	}
	n, err := hex.Decode(k.secret[:], b[:min(len(b), 2*len(k.secret))])
	if err != nil || n != len(k.secret) || string(b[2*n:]) != "\n" {
		return Key{}, fmt.Errorf("privacy: key: %s is no key: want 64 hexadecimal digits and a line end", path)
	}
	return k, nil
}

// MakeDir makes a directory for its owner alone, with its parents, and refuses one that others may enter.
func MakeDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o777); err != nil {
		return err
	}
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		return syncDir(filepath.Dir(dir))
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	return secret(dir)
}

// secret refuses what others than the owner may read or write.
func secret(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	switch mode := info.Mode(); {
	case !mode.IsRegular() && !mode.IsDir():
		return fmt.Errorf("%s is no plain file or directory", path)
	case runtime.GOOS != "windows" && mode.Perm()&0o077 != 0:
		return fmt.Errorf("%s has mode %04o: others may use it; say chmod go= %s if they have not, else start anew", path, mode.Perm(), path)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Fingerprint names a key without telling it.
func (k Key) Fingerprint() string {
	f := derive(k.secret, "fingerprint")
	return hex.EncodeToString(f[:8])
}

// derive is HMAC-SHA256 of labels, each with its length, under a secret.
func derive(secret [32]byte, labels ...string) (out [32]byte) {
	h := hmac.New(sha256.New, secret[:])
	h.Write([]byte("rung/train/privacy"))
	for _, l := range labels {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(l))))
		h.Write([]byte(l))
	}
	h.Sum(out[:0])
	return out
}

// String is the fingerprint.
func (k Key) String() string { return "key " + k.Fingerprint() }

// Format writes the fingerprint, whatever the verb.
func (k Key) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(k.String())) }

// MarshalText is refused: a key is in its own file and nowhere else.
func (k Key) MarshalText() ([]byte, error) {
	return nil, errors.New("privacy: a key is not to be written anywhere but into its file")
}

// Holds reports that b has the secret in it, as it is or in hexadecimal digits: what is given away must not.
func (k Key) Holds(b []byte) bool {
	s := string(b)
	return strings.Contains(s, string(k.secret[:])) || strings.Contains(strings.ToLower(s), hex.EncodeToString(k.secret[:]))
}
