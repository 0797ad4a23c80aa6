package graph

import (
	"fmt"

	"rung/nn/backend"
	"rung/nn/backend/host"
)

// A Segment is one weight in a Store.
type Segment struct {
	Path      string
	Dims      []int
	Trainable bool
	Group     int8    // parameter group: its learning rate and decay
	Shrink    float64 // see nn.Param
	Sign      float64 // not 0: an update moves elements by it, against the sign of the gradient
	Off       int     // elements from the start of Master, and of Grad and moments where it is trainable
}

// Size is the number of elements.
func (s Segment) Size() int { return Shape{Dims: s.Dims}.Size() }

// A Store is weights on a backend, flat and keyed by path, trainable ones first; with gradients if it
// is for training. Many programs share one. It is not for concurrent writing.
type Store struct {
	be      backend.Backend
	Seg     []Segment
	at      map[string]int
	Master  backend.Memory
	Grad    backend.Memory // of the trainable weights; nil without training
	n, k    int            // elements, and those of them that are trainable
	changes [2]*uint64     // versions: of frozen weights, of trainable ones
}

// align keeps every weight on a cache line of its own.
const align = 16

// NewStore reserves memory for weights, zeroed. Seg's offsets are set here; their order is kept within
// the trainable and within the frozen ones.
func NewStore(be backend.Backend, seg []Segment, training bool) (*Store, error) {
	s := &Store{be: be, at: map[string]int{}, changes: [2]*uint64{new(uint64), new(uint64)}}
	for _, trainable := range []bool{true, false} {
		for _, g := range seg {
			if g.Trainable != trainable {
				continue
			}
			if _, dup := s.at[g.Path]; dup {
				return nil, fmt.Errorf("graph: two weights named %q", g.Path)
			}
			if g.Size() < 1 {
				return nil, fmt.Errorf("graph: weight %q has shape %v", g.Path, g.Dims)
			}
			g.Off = s.n
			s.at[g.Path] = len(s.Seg)
			s.Seg = append(s.Seg, g)
			s.n += (g.Size() + align - 1) / align * align
		}
		if trainable {
			s.k = s.n
		}
	}
	var err error
	if s.Master, err = be.Reserve(s.bytes(s.n)); err != nil {
		return nil, fmt.Errorf("graph: weights: %w", err)
	}
	if training {
		if s.Grad, err = be.Reserve(s.bytes(s.k)); err != nil {
			_ = s.Close()
			return nil, fmt.Errorf("graph: gradients: %w", err)
		}
		if m, ok := s.Grad.(backend.Sparse); ok {
			m.Track()
		}
	}
	return s, nil
}

func (s *Store) bytes(n int) int64 { return int64(n) * int64(s.be.Float().Size()) }

// Backend is where the weights are.
func (s *Store) Backend() backend.Backend { return s.be }

// Trainable is the number of elements of the flat gradient, gaps between weights included.
func (s *Store) Trainable() int { return s.k }

// Find returns the segment of a path.
func (s *Store) Find(path string) (Segment, bool) {
	i, ok := s.at[path]
	if !ok {
		return Segment{}, false
	}
	return s.Seg[i], true
}

// Changed tells that weights were written, so that cached forms of them are made again.
func (s *Store) Changed(trainable bool) { *s.version(trainable)++ }

func (s *Store) version(trainable bool) *uint64 {
	if trainable {
		return s.changes[1]
	}
	return s.changes[0]
}

// block is where a weight, or something that lies as the trainable weights do, is in m.
func (s *Store) block(m backend.Memory, g Segment) backend.Block {
	return backend.Block{Mem: m, Off: g.Off, Version: s.version(g.Trainable)}
}

// GradientBlock is where the gradient of a trainable weight is.
func (s *Store) GradientBlock(g Segment) backend.Block { return backend.Block{Mem: s.Grad, Off: g.Off} }

// ReadWeight copies a weight to the host, ReadGradient its gradient.
func ReadWeight[F host.Float](s *Store, path string) ([]F, error) {
	return read[F](s, s.Master, path, false)
}

// ReadGradient copies the gradient of a weight to the host.
func ReadGradient[F host.Float](s *Store, path string) ([]F, error) {
	return read[F](s, s.Grad, path, true)
}

// WriteWeight copies a weight from the host.
func WriteWeight[F host.Float](s *Store, path string, v []F) error {
	g, ok := s.Find(path)
	if !ok {
		return fmt.Errorf("graph: no weight %q", path)
	}
	if len(v) != g.Size() {
		return fmt.Errorf("graph: weight %q has %d elements, not %d", path, g.Size(), len(v))
	}
	if err := same[F](s.be); err != nil {
		return err
	}
	s.Changed(g.Trainable)
	return s.Master.WriteAt(host.Bytes(v), s.bytes(g.Off))
}

// ViewWeight is a weight where the host can address it, else a copy: to be read at once, before the
// store changes.
func ViewWeight[F host.Float](s *Store, path string) ([]F, error) {
	return view[F](s, s.Master, path, false)
}

// ViewLike is the part of one weight in m, which lies as the trainable weights do; as ViewWeight.
func ViewLike[F host.Float](s *Store, m backend.Memory, path string) ([]F, error) {
	return view[F](s, m, path, true)
}

func view[F host.Float](s *Store, m backend.Memory, path string, trainable bool) ([]F, error) {
	g, ok := s.Find(path)
	if !ok || m == nil || m.Host() == nil || same[F](s.be) != nil || trainable && !g.Trainable {
		return read[F](s, m, path, trainable)
	}
	return host.Elements[F](m.Host())[g.Off : g.Off+g.Size() : g.Off+g.Size()], nil
}

// Fill sets a weight by a function that is given it zeroed.
func Fill[F host.Float](s *Store, path string, init func(dst []F) error) error {
	g, ok := s.Find(path)
	if !ok {
		return fmt.Errorf("graph: no weight %q", path)
	}
	if s.Master.Host() == nil || same[F](s.be) != nil {
		v := make([]F, g.Size())
		if err := init(v); err != nil {
			return err
		}
		return WriteWeight(s, path, v)
	}
	v, err := ViewWeight[F](s, path)
	if err != nil {
		return err
	}
	clear(v)
	s.Changed(g.Trainable)
	return init(v)
}

// ReadLike reads from m, which lies as the trainable weights do (a moment), the part of one weight.
func ReadLike[F host.Float](s *Store, m backend.Memory, path string) ([]F, error) {
	return read[F](s, m, path, true)
}

// WriteLike writes the part of one weight to m.
func WriteLike[F host.Float](s *Store, m backend.Memory, path string, v []F) error {
	g, ok := s.Find(path)
	if !ok || !g.Trainable {
		return fmt.Errorf("graph: no weight %q, or it is not trained", path)
	}
	if len(v) != g.Size() {
		return fmt.Errorf("graph: weight %q has %d elements, not %d", path, g.Size(), len(v))
	}
	if err := same[F](s.be); err != nil {
		return err
	}
	return m.WriteAt(host.Bytes(v), s.bytes(g.Off))
}

func read[F host.Float](s *Store, m backend.Memory, path string, trainable bool) ([]F, error) {
	g, ok := s.Find(path)
	if !ok || trainable && (!g.Trainable || m == nil) {
		return nil, fmt.Errorf("graph: no weight %q, or it is not trained", path)
	}
	if err := same[F](s.be); err != nil {
		return nil, err
	}
	v := make([]F, g.Size())
	return v, m.ReadAt(host.Bytes(v), s.bytes(g.Off))
}

// same checks that F is what the backend computes in.
func same[F host.Float](be backend.Backend) error {
	var f F
	if _, is64 := any(f).(float64); is64 != (be.Float() == backend.Float64) {
		return fmt.Errorf("graph: %T on backend %s", f, be.Name())
	}
	return nil
}

// Close frees the memory.
func (s *Store) Close() error {
	var err error
	for _, m := range []backend.Memory{s.Master, s.Grad} {
		if m != nil {
			if e := m.Free(); err == nil {
				err = e
			}
		}
	}
	return err
}
