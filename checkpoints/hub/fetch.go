package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

const (
	attempts = 5                // for one request, when the network or the server fails
	stall    = 60 * time.Second // without a byte, after which a download counts as broken off
)

// A fetcher makes requests to the hub.
type fetcher struct {
	client   *http.Client
	endpoint string
	token    string
	retry    time.Duration
}

// unreachable marks a failure of the network or the server, which may go away by itself.
type unreachable struct{ err error }

func (u *unreachable) Error() string { return u.err.Error() }
func (u *unreachable) Unwrap() error { return u.err }

// do asks for u from byte offset on. The token is not sent on when the hub redirects to another host.
func (g fetcher) do(ctx context.Context, u string, offset int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "rung")
	// The stored bytes: a compressed answer has no ranges and hides its length.
	req.Header.Set("Accept-Encoding", "identity")
	if g.token != "" {
		req.Header.Set("Authorization", "Bearer "+g.token)
	}
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := g.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, &unreachable{err}
	}
	return resp, nil
}

// again repeats try while it fails in a way that may pass. An attempt that made progress does not count.
func (g fetcher) again(ctx context.Context, try func() (progress bool, err error)) error {
	wait := g.retry
	if wait <= 0 {
		wait = time.Second
	}
	pause := wait
	for failed := 0; ; {
		progress, err := try()
		if err == nil || ctx.Err() != nil || !errors.As(err, new(*unreachable)) {
			return err
		}
		if progress {
			failed, pause = 0, wait
		}
		if failed++; failed == attempts {
			return fmt.Errorf("after %d attempts: %w", attempts, err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
		pause *= 2
	}
}

// file downloads u into part, behind what part holds already; resumed tells whether it held anything.
func (g fetcher) file(ctx context.Context, u string, r repo, part *os.File, f remoteFile, progress func(done, total int64)) (resumed bool, err error) {
	size := f.size()
	first := true
	err = g.again(ctx, func() (bool, error) {
		at, err := part.Seek(0, io.SeekEnd)
		if err != nil {
			return false, err
		}
		if first {
			resumed, first = at > 0, false
		}
		if size > 0 && at >= size {
			if at > size { // not this file's
				return false, restart(part)
			}
			progress(at, size)
			return true, nil
		}
		n, err := g.rest(ctx, u, r, part, at, size, progress)
		return n > 0, err
	})
	return resumed, err
}

// restart empties part and asks for another attempt.
func restart(part *os.File) error {
	if err := part.Truncate(0); err != nil {
		return err
	}
	return &unreachable{errors.New("what was downloaded before does not belong to this file")}
}

// rest makes one request for what is missing behind byte at, and returns how many bytes came.
func (g fetcher) rest(ctx context.Context, u string, r repo, part *os.File, at, size int64, progress func(done, total int64)) (int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	resp, err := g.do(ctx, u, at)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusOK:
		if at > 0 { // no ranges here
			if err := part.Truncate(0); err != nil {
				return 0, err
			}
			at = 0
		}
	case resp.StatusCode == http.StatusPartialContent && at > 0 && strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", at)):
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable || resp.StatusCode == http.StatusPartialContent:
		return 0, restart(part)
	default:
		return 0, g.refused(resp, r)
	}
	if _, err := part.Seek(at, io.SeekStart); err != nil {
		return 0, err
	}
	if size == 0 && resp.ContentLength > 0 {
		size = at + resp.ContentLength
	}
	timer := time.AfterFunc(stall, func() {
		cancel(&unreachable{fmt.Errorf("nothing came for %s", stall)})
	})
	defer timer.Stop()
	return copyBody(ctx, part, resp.Body, at, size, func(done int64) {
		timer.Reset(stall)
		progress(done, size)
	})
}

// copyBody appends body to part. A body that is longer than the file should be is cut off: nobody fills
// the disk; one that ends early, which HTTP/1.0 and proxies hide, is an error.
func copyBody(ctx context.Context, part *os.File, body io.Reader, at, size int64, progress func(done int64)) (int64, error) {
	if size > 0 {
		body = io.LimitReader(body, size-at)
	}
	buf := make([]byte, 1<<18)
	var n int64
	for {
		m, err := body.Read(buf)
		if m > 0 {
			if _, werr := part.Write(buf[:m]); werr != nil {
				return n, werr
			}
			n += int64(m)
			progress(at + n)
		}
		switch {
		case err == io.EOF && size > 0 && at+n < size:
			return n, &unreachable{fmt.Errorf("the download broke off after %d of %d bytes", at+n, size)}
		case err == io.EOF:
			return n, nil
		case err != nil && ctx.Err() != nil:
			return n, context.Cause(ctx)
		case err != nil:
			return n, &unreachable{fmt.Errorf("the download broke off after %d bytes: %w", at+n, err)}
		}
	}
}

// refused explains an answer that is not the file.
func (g fetcher) refused(resp *http.Response, r repo) error {
	where := g.endpoint + "/" + r.id
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		why := "check the name; if it is private or gated, set HF_TOKEN and accept its terms there"
		if g.token != "" {
			why = "check the name; if it is private or gated, the token in use has no access: accept its terms there, or use another"
		}
		return fmt.Errorf("no access to %s (HTTP %d): %s", where, code, why)
	case code == http.StatusNotFound && resp.Header.Get("X-Error-Code") == "RevisionNotFound":
		return fmt.Errorf("%s has no revision %q (HTTP 404)", where, r.rev)
	case code == http.StatusNotFound:
		return fmt.Errorf("there is no %s at revision %q (HTTP 404): check the name", where, r.rev)
	case code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code >= 500:
		return &unreachable{fmt.Errorf("%s answers %s", resp.Request.URL.Redacted(), resp.Status)}
	}
	return fmt.Errorf("%s answers %s", where, resp.Status)
}
