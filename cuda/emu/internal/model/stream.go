package model

import "time"

// An operation is a piece of a stream's work.
type operation func() Result

type stream struct {
	handle  Handle
	context *context
	legacy  bool // the default stream: it and blocking ones wait for each other
	free    bool // CU_STREAM_NON_BLOCKING
	queue   []operation
	capture *capture
	dirty   bool // has captured work that no event of the capture stands for
}

func (s *stream) of() *context { return s.context }

type event struct {
	handle  Handle
	context *context
	timing  bool
	record  *record // the last one, nil: never recorded
}

func (e *event) of() *context { return e.context }

// A record is one cuEventRecord.
type record struct {
	stream  *stream
	capture *capture // where the stream was being captured
	done    bool
	at      time.Duration
}

// StreamCreate is cuStreamCreate.
func (d *Driver) StreamCreate(call string, thread int, flags uint32) (Handle, Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.within(call, thread)
	if r != Success {
		return 0, r
	}
	if flags > 1 {
		return 0, InvalidValue
	}
	s := &stream{context: c, free: flags == 1}
	s.handle = d.handle(s)
	c.streams = append(c.streams, s)
	return s.handle, Success
}

// stream finds the stream of a handle in a context; small handles are the default stream.
func (d *Driver) stream(c *context, h Handle) (*stream, Result) {
	if h <= 2 {
		return c.streams[0], Success
	}
	s, ok := d.handles[h].(*stream)
	if !ok || s.context != c {
		return nil, InvalidHandle
	}
	return s, Success
}

// on begins a call that names a stream of the thread's context.
func (d *Driver) on(call string, thread int, h Handle) (*context, *stream, Result) {
	c, r := d.within(call, thread)
	if r != Success {
		return nil, nil, r
	}
	s, r := d.stream(c, h)
	return c, s, r
}

// StreamDestroy is cuStreamDestroy: what is queued still runs.
func (d *Driver) StreamDestroy(thread int, h Handle) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.within("cuStreamDestroy_v2", thread)
	if r != Success {
		return r
	}
	s, r := d.stream(c, h)
	if r != Success || s.legacy {
		return InvalidHandle
	}
	if s.capture != nil {
		s.capture.invalid = true
	}
	d.drain(s)
	for i, other := range c.streams {
		if other == s {
			c.streams = append(c.streams[:i:i], c.streams[i+1:]...)
			break
		}
	}
	delete(d.handles, h)
	return Success
}

// enqueue puts work on a stream, or into the graph that it is captured to.
func (d *Driver) enqueue(s *stream, node node) Result {
	if s.capture != nil {
		if s.capture.invalid {
			return CaptureInvalidated
		}
		s.capture.graph.nodes = append(s.capture.graph.nodes, node)
		s.dirty = true
		return Success
	}
	if r := d.implicit(s); r != Success {
		return r
	}
	s.queue = append(s.queue, node.run)
	return Success
}

// implicit orders the default stream and the blocking ones after each other.
func (d *Driver) implicit(s *stream) Result {
	if s.free {
		return Success
	}
	for _, other := range s.context.streams {
		if other == s || other.free || s.legacy == other.legacy {
			continue
		}
		if other.capture != nil {
			other.capture.invalid = true
			return CaptureImplicit
		}
		if r := d.drain(other); r != Success {
			return r
		}
	}
	return Success
}

// step runs the first piece of a stream's work.
func (d *Driver) step(s *stream) Result {
	op := s.queue[0]
	s.queue = s.queue[1:]
	r := op()
	if r != Success {
		s.context.sticky = r
		for _, other := range s.context.streams {
			other.queue = nil
		}
	}
	return r
}

// drain runs all work of a stream.
func (d *Driver) drain(s *stream) Result {
	for len(s.queue) > 0 {
		if r := d.step(s); r != Success {
			return r
		}
	}
	return s.context.sticky
}

// StreamSynchronize is cuStreamSynchronize.
func (d *Driver) StreamSynchronize(thread int, h Handle) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, s, r := d.on("cuStreamSynchronize", thread, h)
	if r != Success {
		return r
	}
	if r := d.quiet(thread, s); r != Success {
		return r
	}
	if r := d.implicit(s); r != Success {
		return r
	}
	return d.drain(s)
}

// StreamQuery is cuStreamQuery. It runs a piece of the work, so that polling ends.
func (d *Driver) StreamQuery(thread int, h Handle) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, s, r := d.on("cuStreamQuery", thread, h)
	if r != Success {
		return r
	}
	if r := d.quiet(thread, s); r != Success {
		return r
	}
	if len(s.queue) == 0 {
		return Success
	}
	if r := d.step(s); r != Success {
		return r
	}
	return NotReady
}

// EventCreate is cuEventCreate.
func (d *Driver) EventCreate(thread int, flags uint32) (Handle, Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.within("cuEventCreate", thread)
	if r != Success {
		return 0, r
	}
	e := &event{context: c, timing: flags&2 == 0}
	e.handle = d.handle(e)
	return e.handle, Success
}

// EventDestroy is cuEventDestroy.
func (d *Driver) EventDestroy(thread int, h Handle) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, r := d.within("cuEventDestroy_v2", thread); r != Success {
		return r
	}
	if _, ok := d.handles[h].(*event); !ok {
		return InvalidHandle
	}
	delete(d.handles, h)
	return Success
}

// EventRecord is cuEventRecord.
func (d *Driver) EventRecord(call string, thread int, h, on Handle) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.within(call, thread)
	if r != Success {
		return r
	}
	e, ok := d.handles[h].(*event)
	if !ok {
		return InvalidHandle
	}
	s, r := d.stream(c, on)
	if r != Success {
		return r
	}
	rec := &record{stream: s, capture: s.capture}
	e.record = rec
	if s.capture != nil {
		s.dirty = false // the event stands for it
		return Success
	}
	return d.enqueue(s, node{kind: nodeEvent, run: func() Result {
		rec.done, rec.at = true, time.Since(d.began)
		return Success
	}})
}

// await runs work until a record is done.
func (d *Driver) await(rec *record) Result {
	for !rec.done && len(rec.stream.queue) > 0 {
		if r := d.step(rec.stream); r != Success {
			return r
		}
	}
	return rec.stream.context.sticky
}

// StreamWaitEvent is cuStreamWaitEvent. Where the event belongs to a capture, the stream joins it.
func (d *Driver) StreamWaitEvent(thread int, h, on Handle) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, s, r := d.on("cuStreamWaitEvent", thread, h)
	if r != Success {
		return r
	}
	e, ok := d.handles[on].(*event)
	switch {
	case !ok:
		return InvalidHandle
	case e.record == nil:
		return Success
	case e.record.capture != nil:
		return d.join(s, e.record)
	case s.capture != nil:
		s.capture.invalid = true
		return CaptureIsolation
	}
	rec := e.record
	return d.enqueue(s, node{kind: nodeEvent, run: func() Result { return d.await(rec) }})
}

// EventSynchronize is cuEventSynchronize.
func (d *Driver) EventSynchronize(thread int, h Handle) Result {
	return d.event("cuEventSynchronize", thread, h, func(rec *record) Result { return d.await(rec) })
}

// EventQuery is cuEventQuery. It runs a piece of the work, so that polling ends.
func (d *Driver) EventQuery(thread int, h Handle) Result {
	return d.event("cuEventQuery", thread, h, func(rec *record) Result {
		if rec.done || len(rec.stream.queue) == 0 {
			return Success
		}
		if r := d.step(rec.stream); r != Success {
			return r
		}
		return NotReady
	})
}

func (d *Driver) event(call string, thread int, h Handle, f func(rec *record) Result) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, r := d.within(call, thread); r != Success {
		return r
	}
	e, ok := d.handles[h].(*event)
	switch {
	case !ok:
		return InvalidHandle
	case e.record == nil:
		return Success
	case e.record.capture != nil:
		e.record.capture.invalid = true
		return CapturedEvent
	}
	if r := d.unsafe(thread); r != Success {
		return r
	}
	return f(e.record)
}

// EventElapsedTime is cuEventElapsedTime, in milliseconds of the emulator's own time.
func (d *Driver) EventElapsedTime(thread int, from, to Handle) (float32, Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, r := d.within("cuEventElapsedTime", thread); r != Success {
		return 0, r
	}
	a, okA := d.handles[from].(*event)
	b, okB := d.handles[to].(*event)
	switch {
	case !okA || !okB || a.record == nil || b.record == nil || !a.timing || !b.timing:
		return 0, InvalidHandle
	case a.record.capture != nil || b.record.capture != nil:
		return 0, CapturedEvent
	case !a.record.done || !b.record.done:
		return 0, NotReady
	}
	return float32((b.record.at - a.record.at).Seconds() * 1e3), Success
}
