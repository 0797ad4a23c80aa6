package privacy

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Dir is the name of the directory that holds what must not leave the machine: the key and the ledger.
// It stands beside the training state, is of mode 0700, and no export touches it.
const Dir = "private"

// keyFile is the key's name in it: 32 bytes, mode 0600.
const keyFile = "key"

const keyBytes = 32

// A Key is the secret that a run's batches and noise come from. Who knows it can take the noise away. It
// never shows in what is printed, logged or encoded; its fingerprint may be told.
type Key struct {
	secret func() []byte // of which the printing of a struct that holds a Key shows an address
	seeded bool
}

// NewKey draws a key from the operating system.
func NewKey() *Key {
	b := make([]byte, keyBytes)
	_, _ = rand.Read(b) // never fails: it ends the process where there is no randomness
	return keyOf(b)
}

func keyOf(b []byte) *Key { return &Key{secret: func() []byte { return b }} }

// Insecure makes a key from a seed, for tests: everyone can make it, so that nothing is private, and a
// Claim that comes of it states no ε.
func Insecure(seed uint64) *Key {
	b := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("rung privacy insecure seed"), seed))
	k := keyOf(b[:])
	k.seeded = true
	return k
}

// Seeded tells whether the key came from Insecure.
func (k *Key) Seeded() bool { return k.seeded }

// derive returns 32 bytes that depend on the key, the purpose and what, and tell nothing of the key or of
// what any other purpose gets (HKDF-Expand with SHA-256, RFC 5869; the key is uniform already).
func (k *Key) derive(purpose string, what []byte) ([]byte, error) {
	b, err := hkdf.Expand(sha256.New, k.secret(), "rung privacy 1 "+purpose+"\x00"+string(what), keyBytes)
	if err != nil {
		return nil, fmt.Errorf("privacy: key: %w", err)
	}
	return b, nil
}

// Fingerprint identifies the key and tells nothing of it: 128 bits in hexadecimal, "insecure-" before
// them if the key is.
func (k *Key) Fingerprint() string {
	if k == nil || k.secret == nil {
		return "none"
	}
	b, err := k.derive("fingerprint", nil)
	if err != nil {
		return "none"
	}
	if k.seeded {
		return "insecure-" + hex.EncodeToString(b[:16])
	}
	return hex.EncodeToString(b[:16])
}

// String is for people: the fingerprint.
func (k *Key) String() string { return "key " + k.Fingerprint() }

// Format prints the same for every verb and flag.
func (k *Key) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, k.String()) }

// GoString is String.
func (k *Key) GoString() string { return k.String() }

// MarshalText encodes the fingerprint: for encoding/json too. There is no way back.
func (k *Key) MarshalText() ([]byte, error) { return []byte(k.Fingerprint()), nil }

// OpenKey reads the key of a run whose output directory is out. An error wraps fs.ErrNotExist where there
// is none. A key that others may read or that is not whole is refused.
func OpenKey(out string) (*Key, error) {
	k, err := readKey(filepath.Join(out, Dir))
	if err != nil {
		return nil, fmt.Errorf("privacy: %w", err)
	}
	return k, nil
}

func readKey(dir string) (*Key, error) {
	path := filepath.Join(dir, keyFile)
	if err := secluded(dir); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", path)
	case st.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s is of mode %04o, so that others may have it: a key of mode 0600 is wanted, and a new one if they had", path, st.Mode().Perm())
	case st.Size() != keyBytes:
		return nil, fmt.Errorf("%s has %d bytes, a key has %d", path, st.Size(), keyBytes)
	}
	b := make([]byte, keyBytes)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keyOf(b), nil
}

// secluded refuses a directory that others may enter.
func secluded(dir string) error {
	st, err := os.Lstat(dir)
	switch {
	case err != nil:
		return err
	case !st.IsDir():
		return fmt.Errorf("%s is no directory", dir)
	case st.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s is of mode %04o, want 0700: it holds what others must not read", dir, st.Mode().Perm())
	}
	return nil
}

// Keep writes the key into the output directory out, whole or not at all. It refuses to replace one.
func (k *Key) Keep(out string) error {
	if err := k.write(filepath.Join(out, Dir)); err != nil {
		return fmt.Errorf("privacy: %w", err)
	}
	return nil
}

func (k *Key) write(dir string) (err error) {
	if err := makePrivate(dir); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+keyFile+".tmp-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(k.secret())
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	// a link, unlike a rename, replaces nothing
	if err := os.Link(f.Name(), filepath.Join(dir, keyFile)); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s is there already: a run whose key is replaced counts its steps again", filepath.Join(dir, keyFile))
		}
		return err
	}
	return syncDir(dir)
}

// makePrivate makes the directory, and its name durable.
func makePrivate(dir string) error {
	switch err := os.Mkdir(dir, 0o700); {
	case err == nil:
		return syncDir(filepath.Dir(dir))
	case errors.Is(err, fs.ErrExist):
		return secluded(dir)
	default:
		return err
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
