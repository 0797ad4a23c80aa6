package hub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A remoteFile is one file of a repository, as the hub's API lists it.
type remoteFile struct {
	Name   string `json:"rfilename"`
	Size   int64  `json:"size"`
	BlobID string `json:"blobId"` // git's object id: SHA-1 of "blob SIZE\0" and the content
	LFS    *struct {
		SHA256 string `json:"sha256"`
		Size   int64  `json:"size"`
	} `json:"lfs"` // for files that git keeps elsewhere; BlobID is then the pointer's
}

var blobName = regexp.MustCompile(`^(?:[0-9a-f]{40}|[0-9a-f]{64})$`)

// sum returns the checksum to expect, which names the file's blob in the cache; "" where the hub does
// not say.
func (f remoteFile) sum() string {
	if f.LFS != nil {
		return f.LFS.SHA256
	}
	return f.BlobID
}

// newHash returns the hash that makes sum, for a content of size bytes.
func (f remoteFile) newHash(size int64) hash.Hash {
	if f.LFS != nil {
		return sha256.New()
	}
	h := sha1.New()
	fmt.Fprintf(h, "blob %d\x00", size)
	return h
}

// download brings the needed files of a revision into the cache. What is there already is not asked
// for again, and a file that broke off goes on where it stopped.
func (c *Client) download(ctx context.Context, r repo, s snapshot) (dir, commit string, err error) {
	client := c.HTTP
	if client == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.ResponseHeaderTimeout = 30 * time.Second
		client = &http.Client{Transport: transport}
		defer transport.CloseIdleConnections()
	}
	get := fetcher{client: client, token: c.Token, retry: c.Retry, endpoint: c.Endpoint}
	if get.endpoint == "" {
		get.endpoint = DefaultEndpoint
	}
	commit, files, err := get.list(ctx, r)
	if err != nil {
		return "", "", err
	}
	s.dir = filepath.Join(s.repoDir, "snapshots", commit)
	chosen, err := choose(files)
	if err != nil {
		return "", "", err
	}
	for _, d := range []string{filepath.Join(s.repoDir, "blobs"), s.dir, filepath.Join(c.Cache, ".locks", r.folder())} {
		if err := os.MkdirAll(d, 0o777); err != nil {
			return "", "", err
		}
	}
	for _, f := range chosen {
		if err := c.bring(ctx, get, r, s, commit, f); err != nil {
			return "", "", fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	if err := s.markMissing(commit, files); err != nil {
		return "", "", err
	}
	if err := s.loadable(); err != nil {
		return "", "", err
	}
	return s.dir, commit, s.setRef(r.rev, commit) // last: a ref never names half a snapshot
}

// list asks the hub which commit a revision is and which files it has.
func (g fetcher) list(ctx context.Context, r repo) (commit string, files []remoteFile, err error) {
	u := fmt.Sprintf("%s/api/models/%s/revision/%s?blobs=true", g.endpoint, r.id, url.PathEscape(r.rev))
	var b []byte
	err = g.again(ctx, func() (bool, error) {
		resp, err := g.do(ctx, u, 0)
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return false, g.refused(resp, r)
		}
		if b, err = io.ReadAll(io.LimitReader(resp.Body, maxConfig)); err != nil {
			return false, &unreachable{err}
		}
		return true, nil
	})
	if err != nil {
		return "", nil, err
	}
	var info struct {
		SHA      string       `json:"sha"`
		Siblings []remoteFile `json:"siblings"`
	}
	if err := json.Unmarshal(b, &info); err != nil {
		return "", nil, fmt.Errorf("%s: what came back is no answer of a model hub: %w", u, err)
	}
	if !commitID.MatchString(info.SHA) {
		return "", nil, fmt.Errorf("%s: the answer gives no commit (sha %q)", u, info.SHA)
	}
	return info.SHA, info.Siblings, nil
}

// bring makes sure that f is in the snapshot.
func (c *Client) bring(ctx context.Context, get fetcher, r repo, s snapshot, commit string, f remoteFile) error {
	want := f.sum()
	if want == "" { // a mirror that lists names only: without checksums a blob is known by its file's name
		want = fmt.Sprintf("%x", sha256.Sum256([]byte(commit+"/"+f.Name)))
	} else if !blobName.MatchString(want) {
		return fmt.Errorf("the hub gives %q as its checksum", want)
	}
	unlock, err := lockFile(ctx, filepath.Join(c.Cache, ".locks", r.folder(), want+".lock"))
	if err != nil {
		return err
	}
	defer unlock()
	blob := filepath.Join(s.repoDir, "blobs", want)
	if _, err := os.Stat(blob); err != nil {
		parts := strings.Split(f.Name, "/")
		for i := range parts {
			parts[i] = url.PathEscape(parts[i])
		}
		u := fmt.Sprintf("%s/%s/resolve/%s/%s", get.endpoint, r.id, commit, strings.Join(parts, "/"))
		if err := c.fetch(ctx, get, r, u, blob, f); err != nil {
			return err
		}
	}
	return s.link(f.Name, want)
}

// fetch downloads u to blob by way of blob.incomplete, checks it, and moves it into place.
func (c *Client) fetch(ctx context.Context, get fetcher, r repo, u, blob string, f remoteFile) error {
	part, err := os.OpenFile(blob+".incomplete", os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	defer part.Close()
	progress := func(done, total int64) {
		if c.Progress != nil {
			c.Progress(f.Name, done, total)
		}
	}
	for fresh := false; ; fresh = true {
		resumed, err := get.file(ctx, u, r, part, f, progress)
		if err != nil {
			return err
		}
		err = check(part, f)
		if err == nil {
			break
		}
		// What an earlier run left may have been wrong: begin anew, once.
		if terr := part.Truncate(0); terr != nil || !resumed || fresh {
			return errors.Join(err, terr)
		}
	}
	if err := part.Sync(); err != nil {
		return err
	}
	return os.Rename(part.Name(), blob)
}

// check compares a downloaded file with what the hub says of it.
func check(part *os.File, f remoteFile) error {
	st, err := part.Stat()
	if err != nil {
		return err
	}
	size := f.size()
	if size > 0 && st.Size() != size {
		return fmt.Errorf("downloaded %d bytes, expected %d", st.Size(), size)
	}
	want, h := f.sum(), f.newHash(st.Size())
	if want == "" {
		return nil
	}
	if _, err := part.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.Copy(h, part); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("the download has checksum %s, expected %s", got, want)
	}
	return nil
}

// size is the length in bytes, 0 where the hub does not say.
func (f remoteFile) size() int64 {
	if f.LFS != nil && f.LFS.Size > 0 {
		return f.LFS.Size
	}
	return f.Size
}

// lockFile waits for the lock of a blob, which the Python library takes too.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err {
		case nil:
			return func() { f.Close() }, nil
		case unix.EWOULDBLOCK, unix.EINTR:
		case unix.ENOTSUP, unix.ENOSYS, unix.ENOLCK:
			return func() { f.Close() }, nil // no locks here: two downloads at once cost time, not correctness
		default:
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}
