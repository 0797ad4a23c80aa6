package privacy

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
)

// Domain names how draws are made of a key. A change of it, or of a line of this file, is another draw.
const Domain = "aes256-ctr/1"

// Draws are the random numbers of one step under one key: a function of the key and of the Charge alone.
// A step that is redone draws the same; a step that is redone with another q, σ, C or context draws
// independently of the first, so that their difference shows no gradient without noise.
type Draws struct {
	q, scale       float64 // scale is σC
	units, normals cipher.Block
}

// Draws returns the draws of a charge.
func (k *Key) Draws(c Charge) (*Draws, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if c.Key != k.Fingerprint() || c.Domain != Domain {
		return nil, fmt.Errorf("privacy: step %d: charged to key %s, domain %s; these draws are of %s, %s", c.Step, c.Key, c.Domain, k.Fingerprint(), Domain)
	}
	id := c.identity()
	d := &Draws{q: c.Q, scale: c.Sigma * c.Clip}
	for purpose, block := range map[string]*cipher.Block{"sampling": &d.units, "noise": &d.normals} {
		sub, err := k.derive(purpose, id[:])
		if err == nil {
			*block, err = aes.NewCipher(sub)
		}
		if err != nil {
			return nil, fmt.Errorf("privacy: step %d: %w", c.Step, err)
		}
	}
	return d, nil
}

// stream fills b, a whole number of blocks of 16 bytes, with the keystream from a block on.
func stream(block cipher.Block, first uint64, b []byte) {
	var iv [aes.BlockSize]byte
	binary.BigEndian.PutUint64(iv[8:], first)
	clear(b)
	cipher.NewCTR(block, iv[:]).XORKeyStream(b, b)
}

// Sample returns the units of the step's batch, of 0 to units-1, in order: each with probability q,
// independently of all others. The batch may be empty.
//
// Unit i is in the batch if its 64 bits, as a number, are below ⌊q·2^64⌋. For q from 2^-12 that is q
// exactly; a smaller q is lowered by less than 2^-64, which spends less than is accounted for.
func (d *Draws) Sample(units int) []int {
	if units <= 0 || d.q <= 0 {
		return nil
	}
	var batch []int
	if d.q == 1 {
		for i := range units {
			batch = append(batch, i)
		}
		return batch
	}
	limit := uint64(math.Ldexp(d.q, 64))
	var b [8192]byte
	for first := 0; first < units; first += len(b) / 8 {
		stream(d.units, uint64(first/2), b[:])
		for i := range min(len(b)/8, units-first) {
			if binary.BigEndian.Uint64(b[8*i:]) < limit {
				batch = append(batch, first+i)
			}
		}
	}
	return batch
}

// identity is what a charge's draws depend on beside the key.
func (c *Charge) identity() [sha256.Size]byte {
	b := append([]byte("charge\x00"), c.Domain...)
	b = append(b, 0)
	for _, v := range []uint64{uint64(c.Step), math.Float64bits(c.Q), math.Float64bits(c.Sigma), math.Float64bits(c.Clip)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return sha256.Sum256(append(b, c.Context...))
}
