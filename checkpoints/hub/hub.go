// Package hub finds models: directories of this machine, and models of the Hugging Face hub, which it
// looks for in the local cache first and downloads only where that lacks them.
//
// It shares the cache of the Python library huggingface_hub, file for file: what either has downloaded,
// the other finds (models--ORG--NAME/blobs, refs, snapshots, .no_exist, and the locks in .locks). Only
// the files that a ranker needs are downloaded, never pickle, HDF5 or ONNX.
//
// The client is the package's own: github.com/gomlx/go-huggingface v0.3.1 takes a download that breaks
// off for a whole one, asks the network before it looks in the cache, knows neither HF_HOME,
// HF_HUB_CACHE, HF_HUB_OFFLINE nor HF_TOKEN, ignores the context for some requests, cannot resume, and
// logs.
package hub

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// DefaultEndpoint is where models come from unless HF_ENDPOINT names a mirror.
const DefaultEndpoint = "https://huggingface.co"

// A Client looks for models. FromEnv makes the one that Resolve uses. A Client may be used from several
// goroutines.
type Client struct {
	Endpoint string        // without a trailing slash; "" is DefaultEndpoint
	Cache    string        // the hub cache, as a rule ~/.cache/huggingface/hub
	Token    string        // for private and gated models; "" for none
	Offline  bool          // never touch the network
	HTTP     *http.Client  // nil is a client with the timeouts that suit long downloads
	Retry    time.Duration // wait before a failed request is repeated, doubling; 0 is one second

	// Progress, if not nil, is told how many bytes of a file are there: often, and last with done = total.
	// total is 0 where the hub does not say.
	Progress func(file string, done, total int64)
}

// FromEnv returns a client as the Python library would set itself up: HF_ENDPOINT; HF_HUB_CACHE,
// HF_HOME or XDG_CACHE_HOME for the cache; HF_HUB_OFFLINE; HF_TOKEN, or the file that "hf auth login"
// writes, unless HF_HUB_DISABLE_IMPLICIT_TOKEN is set.
func FromEnv() (*Client, error) {
	home := os.Getenv("HF_HOME")
	if home == "" {
		cache := os.Getenv("XDG_CACHE_HOME")
		if cache == "" {
			user, err := os.UserHomeDir()
			if err != nil {
				return nil, fmt.Errorf("hub: no place for the cache, set HF_HOME: %w", err)
			}
			cache = filepath.Join(user, ".cache")
		}
		home = filepath.Join(cache, "huggingface")
	}
	home = expandHome(home)
	c := &Client{
		Endpoint: strings.TrimRight(os.Getenv("HF_ENDPOINT"), "/"),
		Cache:    filepath.Join(home, "hub"),
		Token:    strings.TrimSpace(os.Getenv("HF_TOKEN")),
		Offline:  isSet("HF_HUB_OFFLINE"),
	}
	if dir := os.Getenv("HF_HUB_CACHE"); dir != "" {
		c.Cache = expandHome(dir)
	}
	if c.Token == "" && !isSet("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
		path := filepath.Join(home, "token")
		if p := os.Getenv("HF_TOKEN_PATH"); p != "" {
			path = expandHome(p)
		}
		if b, err := os.ReadFile(path); err == nil {
			c.Token = strings.TrimSpace(string(b))
		}
	}
	return c, nil
}

// isSet reads a flag as the Python library does.
func isSet(name string) bool {
	switch strings.ToUpper(os.Getenv(name)) {
	case "1", "ON", "YES", "TRUE":
		return true
	}
	return false
}

func expandHome(path string) string {
	if rest, ok := strings.CutPrefix(path, "~"); ok && (rest == "" || rest[0] == filepath.Separator) {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	return path
}

// Resolve returns the directory of a model and, for a model of the hub, the commit that it is. ref is a
// path, or "hf:org/name", or "hf:org/name@revision" with a branch, a tag or a commit; without one it is
// the branch main. What the cache has is taken without asking the network: a branch once downloaded
// stays as it is until its commit is named.
func Resolve(ctx context.Context, ref string) (dir, rev string, err error) {
	if !strings.HasPrefix(ref, "hf:") {
		dir, err = local(ref) // needs no environment
		return dir, "", err
	}
	c, err := FromEnv()
	if err != nil {
		return "", "", err
	}
	return c.Resolve(ctx, ref)
}

// Resolve is the function Resolve with this client's settings.
func (c *Client) Resolve(ctx context.Context, ref string) (dir, rev string, err error) {
	name, ok := strings.CutPrefix(ref, "hf:")
	if !ok {
		dir, err = local(ref)
		return dir, "", err
	}
	r, err := parseRef(name)
	if err != nil {
		return "", "", err
	}
	dir, rev, err = c.find(ctx, r)
	if err != nil {
		return "", "", fmt.Errorf("hub: %s: %w", r, err)
	}
	return dir, rev, nil
}

func (c *Client) find(ctx context.Context, r repo) (dir, rev string, err error) {
	if c.Cache == "" {
		return "", "", errors.New("no cache directory is set")
	}
	s := snapshot{repoDir: filepath.Join(c.Cache, r.folder())}
	commit := s.commit(r.rev)
	if commit != "" {
		s.dir = filepath.Join(s.repoDir, "snapshots", commit)
		if s.complete(commit) {
			return s.dir, commit, nil
		}
	}
	usable := commit != "" && s.loadable() == nil
	if c.Offline {
		if usable {
			return s.dir, commit, nil
		}
		if commit != "" {
			return "", "", fmt.Errorf("%s is incomplete (%w), and HF_HUB_OFFLINE forbids to download the rest", s.dir, s.loadable())
		}
		return "", "", fmt.Errorf("not in the cache (looked for revision %s in %s), and HF_HUB_OFFLINE forbids to download it", r.rev, s.repoDir)
	}
	dir, rev, err = c.download(ctx, r, s)
	if usable && errors.As(err, new(*unreachable)) {
		return s.dir, commit, nil // it may lack optional files, as it may offline
	}
	return dir, rev, err
}

// local checks a path of this machine.
func local(path string) (string, error) {
	if path == "" {
		return "", errors.New("hub: no model is named: give a directory, or hf:org/name")
	}
	path = expandHome(path)
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		abs, aerr := filepath.Abs(path)
		if aerr != nil {
			abs = path
		}
		hint := ""
		if _, perr := parseRef(path); perr == nil && strings.Count(path, "/") == 1 {
			hint = fmt.Sprintf("; for the model of that name on the Hugging Face hub give hf:%s", path)
		}
		return "", fmt.Errorf("hub: no model directory %q (looked for %s)%s", path, abs, hint)
	case err != nil:
		return "", fmt.Errorf("hub: %w", err)
	case !st.IsDir():
		return "", fmt.Errorf("hub: %s is a file: a model is the directory that holds it, %s", path, filepath.Dir(path))
	}
	return path, nil
}

// A repo is a model of the hub at a revision.
type repo struct{ id, rev string }

var (
	namePart = `[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?`
	repoID   = regexp.MustCompile(`^(?:` + namePart + `/)?` + namePart + `$`)
	revision = regexp.MustCompile(`^[A-Za-z0-9_.][A-Za-z0-9_./+-]{0,254}$`)
	commitID = regexp.MustCompile(`^[0-9a-f]{40}$`)
)

// parseRef reads "org/name[@revision]". Both become paths and URLs, so neither may hold anything odd.
func parseRef(s string) (repo, error) {
	id, rev, given := strings.Cut(s, "@")
	if !given {
		rev = "main"
	}
	if !repoID.MatchString(id) || strings.Contains(id, "--") || strings.Contains(id, "..") {
		return repo{}, fmt.Errorf("hub: %q is no model name: write hf:org/name or hf:org/name@revision", "hf:"+s)
	}
	if !revision.MatchString(rev) || !filepath.IsLocal(rev) || filepath.Clean(rev) != rev {
		return repo{}, fmt.Errorf("hub: %q names no revision: give a branch, a tag or a commit after @", "hf:"+s)
	}
	return repo{id, rev}, nil
}

func (r repo) String() string { return "hf:" + r.id + "@" + r.rev }

// folder is the repository's name in the cache.
func (r repo) folder() string { return "models--" + strings.ReplaceAll(r.id, "/", "--") }
