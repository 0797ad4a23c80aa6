package host

import (
	"testing"
	"unsafe"
)

// A program's forms lie on its shelf, which is freed with the last of them, whoever uses it last.
func TestShelves(t *testing.T) {
	var c cache[float32]
	var mine, theirs *shelf
	take := func(i, bytes int, on **shelf) *form[float32] {
		t.Helper()
		f, err := c.take(formKey{rows: i}, bytes, on)
		if err != nil {
			t.Fatal(err)
		}
		if len(f.b) != bytes || uintptr(unsafe.Pointer(&f.b[0]))%64 != 0 {
			t.Fatalf("form %d: %d bytes at %p", i, len(f.b), &f.b[0])
		}
		return f
	}
	drop := func(f *form[float32]) {
		t.Helper()
		if err := c.drop(f); err != nil {
			t.Fatal(err)
		}
	}
	a, b := take(1, 640, &mine), take(2, 64, &mine)
	if a.shelf != b.shelf || cap(a.b) != 640 {
		t.Fatal("two forms of a program lie apart, or one reaches into the other")
	}
	again, other := take(1, 640, &theirs), take(3, 64, &theirs)
	if again != a || other.shelf == a.shelf {
		t.Fatal("a form is made twice, or a program puts it on the shelf of another")
	}
	large := take(4, shelfSize+64, &mine)
	if large.shelf == a.shelf || len(large.shelf.mem.b) < shelfSize+64 {
		t.Fatal("a form that a shelf has no room for")
	}
	a.b[0], b.b[0] = 1, 2
	drop(a)
	drop(b)
	if again.b[0] != 1 {
		t.Fatal("a form in use has changed")
	}
	drop(again)
	if a.shelf.mem.b != nil {
		t.Fatal("a shelf without forms is not freed")
	}
	drop(large)
	if f := take(5, 64, &mine); f.shelf == a.shelf || f.shelf == large.shelf {
		t.Fatal("a form on a shelf that is freed")
	} else {
		drop(f)
	}
	drop(other)
	if len(c.forms) != 0 {
		t.Fatalf("%d forms are left", len(c.forms))
	}
}

// Large blocks start at a huge page; all are what was asked for, zero, and can be given back twice.
func TestReserve(t *testing.T) {
	for _, n := range []int64{0, 1, 4096, 1<<20 - 1, 1 << 20, 3<<20 + 5, 40 << 20} {
		m, err := Reserve(n)
		if err != nil {
			t.Fatal(err)
		}
		b := m.Host()
		if int64(len(b)) != n || m.Size() != n {
			t.Errorf("%d bytes for %d", len(b), n)
		}
		if n >= 1<<20 && uintptr(unsafe.Pointer(&b[0]))%(2<<20) != 0 {
			t.Errorf("%d bytes at %p", n, &b[0])
		}
		if n > 0 && (b[0] != 0 || b[n-1] != 0) {
			t.Errorf("%d bytes are not zero", n)
		}
		for i := int64(0); i < n; i += 4096 {
			b[i] = 1
		}
		if err := m.Free(); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		if err := m.Free(); err != nil || m.Size() != 0 {
			t.Errorf("%d bytes, freed again: %v", n, err)
		}
	}
	for _, n := range []int64{-1, 1 << 47} {
		if _, err := Reserve(n); err == nil {
			t.Errorf("%d bytes", n)
		}
	}
}
