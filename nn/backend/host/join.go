package host

// join gives calls to the kernels of their neighbours.
func (e *exec[F]) join() {
	for i := range e.args {
		if join := e.be.kernels[e.args[i].Op].Join; join != nil {
			e.args[i].With = join(e.args, i)
		}
		for _, a := range e.args[i].With {
			a.joined = true
		}
	}
}

// ByUnit reports that gradients of units are kept apart.
func (a *Args[F]) ByUnit() bool { return a.stride > 0 }

// mark tells tracked memory that all of the results are written.
func (a *Args[F]) mark() {
	for k, o := range a.Out {
		a.OutPages[k].Use(0, extent(o))
	}
}
