package model

import "slices"

type nodeKind int

// The kinds of a graph's nodes: CUgraphNodeType.
const (
	nodeKernel nodeKind = 0
	nodeCopy   nodeKind = 1
	nodeSet    nodeKind = 2
	nodeHost   nodeKind = 3
	nodeEvent  nodeKind = 6
)

type node struct {
	kind nodeKind
	run  operation
}

// A graph holds nodes in an order that respects their dependencies: that of capture.
type graph struct {
	handle  Handle
	context *context
	nodes   []node
}

func (g *graph) of() *context { return g.context }

type graphExec struct {
	handle  Handle
	context *context
	nodes   []node
}

func (g *graphExec) of() *context { return g.context }

// A capture turns the work of streams into a graph.
type capture struct {
	graph   *graph
	origin  *stream
	streams []*stream
	thread  int
	mode    int // CUstreamCaptureMode
	invalid bool
}

const (
	captureGlobal  = 0
	captureThread  = 1
	captureRelaxed = 2
)

// unsafe refuses calls that must not be made while a capture goes on: allocation, loading, waiting. The capture is spoiled.
func (d *Driver) unsafe(thread int) Result {
	for _, c := range d.captures {
		if c.mode == captureGlobal || c.mode == captureThread && c.thread == thread {
			c.invalid = true
			return CaptureUnsupported
		}
	}
	return Success
}

// quiet refuses to wait for a stream that is being captured, and what unsafe refuses.
func (d *Driver) quiet(thread int, s *stream) Result {
	if s.capture != nil {
		s.capture.invalid = true
		return CaptureUnsupported
	}
	return d.unsafe(thread)
}

// StreamBeginCapture is cuStreamBeginCapture.
func (d *Driver) StreamBeginCapture(thread int, h Handle, mode int) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.within("cuStreamBeginCapture_v2", thread)
	if r != Success {
		return r
	}
	s, r := d.stream(c, h)
	switch {
	case r != Success:
		return r
	case s.legacy:
		return CaptureUnsupported
	case s.capture != nil:
		return IllegalState
	case mode < captureGlobal || mode > captureRelaxed:
		return InvalidValue
	}
	s.capture = &capture{graph: &graph{context: c}, origin: s, streams: []*stream{s}, thread: thread, mode: mode}
	d.captures = append(d.captures, s.capture)
	return Success
}

// join lets a stream take part in the capture of an event that it waits for.
func (d *Driver) join(s *stream, rec *record) Result {
	switch {
	case rec.capture.invalid:
		return CaptureInvalidated
	case s.capture != nil && s.capture != rec.capture:
		s.capture.invalid, rec.capture.invalid = true, true
		return CaptureMerge
	case s.legacy:
		rec.capture.invalid = true
		return CaptureImplicit
	case !slices.Contains(d.captures, rec.capture):
		return InvalidValue
	}
	if s.capture == nil {
		s.capture = rec.capture
		rec.capture.streams = append(rec.capture.streams, s)
	}
	s.dirty = true // it depends on what the event stands for
	return Success
}

// CaptureMerge is CUDA_ERROR_STREAM_CAPTURE_MERGE.
const CaptureMerge Result = 902

// StreamEndCapture is cuStreamEndCapture; the graph is 0 where the capture was spoiled.
func (d *Driver) StreamEndCapture(thread int, h Handle) (Handle, Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.within("cuStreamEndCapture", thread)
	if c == nil {
		return 0, r
	}
	s, r := d.stream(c, h)
	if r != Success {
		return 0, r
	}
	p := s.capture
	switch {
	case p == nil:
		return 0, IllegalState
	case p.origin != s:
		return 0, CaptureUnmatched
	case p.mode != captureRelaxed && p.thread != thread:
		return 0, CaptureWrongThread
	}
	unjoined := false
	for _, other := range p.streams {
		unjoined = unjoined || other != s && other.dirty
		other.capture, other.dirty = nil, false
	}
	d.captures = slices.DeleteFunc(d.captures, func(x *capture) bool { return x == p })
	switch {
	case c.sticky != Success:
		return 0, c.sticky
	case p.invalid:
		return 0, CaptureInvalidated
	case unjoined:
		return 0, CaptureUnjoined
	}
	p.graph.handle = d.handle(p.graph)
	return p.graph.handle, Success
}

// StreamIsCapturing is cuStreamIsCapturing: a CUstreamCaptureStatus.
func (d *Driver) StreamIsCapturing(thread int, h Handle) (int, Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.within("cuStreamIsCapturing", thread)
	if r != Success {
		return 0, r
	}
	s, r := d.stream(c, h)
	switch {
	case r != Success || s.capture == nil:
		return 0, r
	case s.capture.invalid:
		return 2, Success
	}
	return 1, Success
}

// GraphInstantiate is cuGraphInstantiateWithFlags.
func (d *Driver) GraphInstantiate(thread int, h Handle) (Handle, Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.within("cuGraphInstantiateWithFlags", thread)
	if r != Success {
		return 0, r
	}
	g, ok := d.handles[h].(*graph)
	if !ok {
		return 0, InvalidValue
	}
	x := &graphExec{context: c, nodes: slices.Clone(g.nodes)}
	x.handle = d.handle(x)
	return x.handle, Success
}

// GraphLaunch is cuGraphLaunch, and cuGraphUpload where upload is set.
func (d *Driver) GraphLaunch(call string, thread int, h, on Handle, upload bool) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.within(call, thread)
	if r != Success {
		return r
	}
	x, ok := d.handles[h].(*graphExec)
	if !ok {
		return InvalidValue
	}
	s, r := d.stream(c, on)
	if r != Success || upload {
		return r
	}
	for _, n := range x.nodes {
		if r := d.enqueue(s, n); r != Success {
			return r
		}
	}
	return Success
}

// GraphDestroy is cuGraphDestroy.
func (d *Driver) GraphDestroy(h Handle) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.enter("cuGraphDestroy"); r != Success {
		return r
	}
	if _, ok := d.handles[h].(*graph); !ok {
		return InvalidValue
	}
	delete(d.handles, h)
	return Success
}

// GraphExecDestroy is cuGraphExecDestroy. What has been launched still runs.
func (d *Driver) GraphExecDestroy(h Handle) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.enter("cuGraphExecDestroy"); r != Success {
		return r
	}
	if _, ok := d.handles[h].(*graphExec); !ok {
		return InvalidValue
	}
	delete(d.handles, h)
	return Success
}

// GraphGetNodes is how many nodes a graph has: what cuGraphGetNodes says without an array.
func (d *Driver) GraphGetNodes(h Handle) (int, Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.enter("cuGraphGetNodes"); r != Success {
		return 0, r
	}
	g, ok := d.handles[h].(*graph)
	if !ok {
		return 0, InvalidValue
	}
	return len(g.nodes), Success
}
