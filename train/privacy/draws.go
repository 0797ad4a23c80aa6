package privacy

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"math"
	"runtime"
	"sync"
)

// Draws are the chances of a run: a pure function of its secret, of what else decides the bits of a step, and of the
// step. Streams are AES-256 in counter mode, under a key for each step and purpose that HMAC-SHA256 derives.
type Draws struct{ root [32]byte }

// Draws are those of a context: what decides, beside the key, which bits a step comes to (device, build). Where that
// changes, so do the draws: two results of the same step that differ in their last bits only, with the same noise,
// would tell of the gradient without it.
func (k Key) Draws(context string) Draws { return Draws{derive(k.secret, "draws", context)} }

// Insecure are draws that a seed decides: for tests. Nothing may be claimed of them.
func Insecure(seed uint64) Draws {
	return Draws{derive([32]byte{}, "insecure", string(binary.LittleEndian.AppendUint64(nil, seed)))}
}

// ID names draws without telling them.
func (d Draws) ID() string {
	id := derive(d.root, "id")
	return hex.EncodeToString(id[:8])
}

// stream is the block cipher of a step and purpose.
func (d Draws) stream(purpose string, step uint64) cipher.Block {
	key := derive(d.root, purpose, string(binary.LittleEndian.AppendUint64(nil, step)))
	b, _ := aes.NewCipher(key[:]) // which refuses nothing but other lengths
	return b
}

// words fills dst with the stream's words from word at on, which is even.
func words(b cipher.Block, at uint64, dst []byte) {
	var iv [16]byte
	binary.BigEndian.PutUint64(iv[8:], at/2)
	clear(dst)
	cipher.NewCTR(b, iv[:]).XORKeyStream(dst, dst)
}

// Sample returns which of n units step draws: each with the probability q, independently, in order. q is rounded down
// to a multiple of 2^-64, so that no unit is drawn more often than is told.
func (d Draws) Sample(step uint64, q float64, n int) []int {
	var drawn []int
	if q >= 1 {
		for u := range n {
			drawn = append(drawn, u)
		}
		return drawn
	}
	below := uint64(math.Ldexp(max(q, 0), 64))
	b := d.stream("sample", step)
	var buf [4096]byte
	for u := 0; u < n; u += len(buf) / 8 {
		k := min(len(buf)/8, n-u)
		words(b, uint64(u), buf[:8*k])
		for i := range k {
			if binary.LittleEndian.Uint64(buf[8*i:]) < below {
				drawn = append(drawn, u+i)
			}
		}
	}
	return drawn
}

// noiseBlock is how many elements one worker draws at a time.
const noiseBlock = 1 << 11

// Noise fills dst with independent draws from N(0,1), the same on any number of processors.
//
// An element is half the sum of four draws by Box and Muller's method in float64, from uniform numbers of 64 bits that
// are never 0, so that a draw reaches 9.4 and the sum 18.8; then it is rounded to float32. The sum of several makes it
// harder to see from the grid of floating-point numbers what a draw was added to (Mironov 2012, "On significance of the
// least significant bits for differential privacy"; Holohan and Braghin 2021, "Secure random sampling in differential
// privacy"). It does not rule that out.
func (d Draws) Noise(step uint64, dst []float32) {
	b := d.stream("noise", step)
	blocks := (len(dst) + noiseBlock - 1) / noiseBlock
	var wait sync.WaitGroup
	workers := min(runtime.GOMAXPROCS(0), blocks)
	for w := range workers {
		wait.Go(func() {
			buf := make([]byte, 32*noiseBlock)
			for i := w; i < blocks; i += workers {
				part := dst[i*noiseBlock : min((i+1)*noiseBlock, len(dst))]
				words(b, uint64(i)*4*noiseBlock, buf[:32*len(part)])
				for j := range part {
					part[j] = float32(sumOfFour(buf[32*j:]))
				}
			}
		})
	}
	wait.Wait()
}

func sumOfFour(b []byte) float64 {
	var sum float64
	for i := range 2 {
		u := (float64(binary.LittleEndian.Uint64(b[16*i:])) + 1) / (1 << 64) // in (0,1]
		v := float64(binary.LittleEndian.Uint64(b[16*i+8:])) / (1 << 64)
		sin, cos := math.Sincos(2 * math.Pi * v)
		sum += math.Sqrt(-2*math.Log(u)) * (sin + cos)
	}
	return sum / 2
}
