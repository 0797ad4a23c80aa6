package model

// DevicePrimaryCtxRetain is cuDevicePrimaryCtxRetain.
func (d *Driver) DevicePrimaryCtxRetain(ordinal int) (Handle, Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	dev, r := d.at("cuDevicePrimaryCtxRetain", ordinal)
	if r != Success {
		return 0, r
	}
	if dev.primary == nil {
		dev.primary = d.newContext(dev)
	}
	dev.retains++
	return dev.primary.handle, Success
}

// at begins a call that names a device.
func (d *Driver) at(call string, ordinal int) (*device, Result) {
	if r := d.enter(call); r != Success {
		return nil, r
	}
	return d.device(ordinal)
}

func (d *Driver) newContext(dev *device) *context {
	c := &context{device: dev, pinned: map[uintptr][]byte{}, allocs: map[uint64]int64{}, modules: map[*module]bool{}}
	c.streams = []*stream{{context: c, legacy: true}}
	c.handle = d.handle(c)
	return c
}

// DevicePrimaryCtxRelease is cuDevicePrimaryCtxRelease: the last one frees all that is in the context.
func (d *Driver) DevicePrimaryCtxRelease(ordinal int) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	dev, r := d.at("cuDevicePrimaryCtxRelease_v2", ordinal)
	if r != Success {
		return r
	}
	if dev.retains == 0 {
		return InvalidContext
	}
	if dev.retains--; dev.retains == 0 {
		d.destroy(dev.primary)
		dev.primary = nil
	}
	return Success
}

// DevicePrimaryCtxReset is cuDevicePrimaryCtxReset.
func (d *Driver) DevicePrimaryCtxReset(ordinal int) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	dev, r := d.at("cuDevicePrimaryCtxReset_v2", ordinal)
	if r == Success && dev.primary != nil {
		d.destroy(dev.primary)
		dev.primary, dev.retains = nil, 0
	}
	return r
}

// DevicePrimaryCtxSetFlags is cuDevicePrimaryCtxSetFlags.
func (d *Driver) DevicePrimaryCtxSetFlags(ordinal int, flags uint32) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	dev, r := d.at("cuDevicePrimaryCtxSetFlags_v2", ordinal)
	if r == Success {
		dev.flags = flags
	}
	return r
}

// DevicePrimaryCtxGetState is cuDevicePrimaryCtxGetState.
func (d *Driver) DevicePrimaryCtxGetState(ordinal int) (flags uint32, active bool, r Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	dev, r := d.at("cuDevicePrimaryCtxGetState", ordinal)
	if r != Success {
		return 0, false, r
	}
	return dev.flags, dev.primary != nil, Success
}

// CtxCreate is cuCtxCreate: the new context is the thread's current one.
func (d *Driver) CtxCreate(thread, ordinal int) (Handle, Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	dev, r := d.at("cuCtxCreate_v2", ordinal)
	if r != Success {
		return 0, r
	}
	c := d.newContext(dev)
	d.current[thread] = append(d.current[thread], c)
	return c.handle, Success
}

// CtxDestroy is cuCtxDestroy.
func (d *Driver) CtxDestroy(h Handle) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.enter("cuCtxDestroy_v2"); r != Success {
		return r
	}
	c, ok := d.handles[h].(*context)
	if !ok || c == c.device.primary {
		return InvalidContext
	}
	d.destroy(c)
	return Success
}

func (d *Driver) destroy(c *context) {
	for _, s := range c.streams {
		if c.sticky == Success {
			d.drain(s)
		}
	}
	for a := range c.allocs {
		_ = c.device.memory.Free(a) // that it is there is known
	}
	for m := range c.modules {
		_ = c.device.memory.Unload(m.parsed)
	}
	for h, v := range d.handles {
		if o, ok := v.(interface{ of() *context }); ok && o.of() == c {
			delete(d.handles, h)
		}
	}
	for p := range c.pinned {
		c.unpin(p)
	}
	c.dead = true
	delete(d.handles, c.handle)
}

// CtxSetCurrent is cuCtxSetCurrent; 0 takes the current one away.
func (d *Driver) CtxSetCurrent(thread int, h Handle) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.enter("cuCtxSetCurrent"); r != Success {
		return r
	}
	var c *context
	if h != 0 {
		var ok bool
		if c, ok = d.handles[h].(*context); !ok {
			return InvalidContext
		}
	}
	stack := d.current[thread]
	if len(stack) == 0 {
		stack = []*context{nil}
	}
	stack[len(stack)-1] = c
	d.current[thread] = stack
	return Success
}

// CtxPushCurrent is cuCtxPushCurrent.
func (d *Driver) CtxPushCurrent(thread int, h Handle) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.enter("cuCtxPushCurrent_v2"); r != Success {
		return r
	}
	c, ok := d.handles[h].(*context)
	if !ok {
		return InvalidContext
	}
	d.current[thread] = append(d.current[thread], c)
	return Success
}

// CtxPopCurrent is cuCtxPopCurrent.
func (d *Driver) CtxPopCurrent(thread int) (Handle, Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.within("cuCtxPopCurrent_v2", thread)
	if c == nil {
		return 0, r
	}
	stack := d.current[thread]
	d.current[thread] = stack[:len(stack)-1]
	return c.handle, Success
}

// CtxGetCurrent is cuCtxGetCurrent; 0 where there is none.
func (d *Driver) CtxGetCurrent(thread int) (Handle, Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.enter("cuCtxGetCurrent"); r != Success {
		return 0, r
	}
	if stack := d.current[thread]; len(stack) > 0 && stack[len(stack)-1] != nil {
		return stack[len(stack)-1].handle, Success
	}
	return 0, Success
}

// CtxGetDevice is cuCtxGetDevice.
func (d *Driver) CtxGetDevice(thread int) (int, Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.within("cuCtxGetDevice", thread)
	if c == nil {
		return 0, r
	}
	return c.device.ordinal, r
}

// CtxSynchronize is cuCtxSynchronize.
func (d *Driver) CtxSynchronize(thread int) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.within("cuCtxSynchronize", thread)
	if r != Success {
		return r
	}
	if r := d.unsafe(thread); r != Success {
		return r
	}
	for _, s := range c.streams {
		if r := d.drain(s); r != Success {
			return r
		}
	}
	return c.sticky
}
