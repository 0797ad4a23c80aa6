package train

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/arch"
	"rung/nn/backend"
	"rung/nn/loss"
	"rung/train/privacy"
)

// another is a backend that rounds otherwise, as far as anybody can know.
type another struct {
	backend.Backend
	name, card string
}

func (a another) Name() string { return a.name }

func (a another) Card() (name string, sms int, memory int64) { return a.card, 1, 1 }

// chargesOf is how many steps a run's ledger has.
func chargesOf(t testing.TB, out string) int {
	l, err := privacy.OpenLedger(out)
	require.NoError(t, err)
	defer l.Close()
	return len(l.Charges())
}

// A run that goes from a device to another and back has, on the first device, weights that it never had there: none of
// the steps is one that was charged before, for the same noise would be added to another sum.
func TestThereAndBack(t *testing.T) {
	c := privateConfig(t)
	c.SaveEvery = 3
	for what, there := range map[string]another{"device": {nil, "there", "card"}, "card": {nil, "here", "other card"}} {
		t.Run(what, func(t *testing.T) {
			c := c
			c.Out, c.Resume = filepath.Join(t.TempDir(), "run"), false
			here := another{workers(t, 2), "here", "card"}
			there.Backend = workers(t, 2)
			c.Backend = here
			r := startPrivate(t, c)
			total := r.Total()
			c.Out, c.Resume = killed(t, r, 8), true // charged 8, saved 6
			c.Backend = there
			r = startPrivate(t, c)
			require.Contains(t, strings.Join(r.Warnings(), "\n"), "2 steps are drawn anew and count twice")
			some(t, r, 1) // the 7th
			require.Equal(t, 9, chargesOf(t, c.Out))
			c.Backend = here
			r = startPrivate(t, c)
			require.Equal(t, int64(total+2), r.Claim().Steps)
			some(t, r, 1) // the 8th
			require.Equal(t, 10, chargesOf(t, c.Out))
			some(t, startPrivate(t, c), -1) // and once it is there, it is the same run
			require.Equal(t, total+2, chargesOf(t, c.Out))
		})
	}
}

// The state is there before the first step is charged: a run that is killed early goes on as itself, and one whose state
// was taken away is refused, whatever it would be now.
func TestStateBeforeCharges(t *testing.T) {
	c := privateConfig(t)
	r := startPrivate(t, c)
	c.Out, c.Resume = killed(t, r, 2), true
	changed := withEpsilon(c, 0)
	changed.Privacy.Unit = unitRow
	_, err := Start(context.Background(), newTiny(), loss.BCE{}, Data{of(7, examples(60)), examples(10)}, changed)
	require.ErrorContains(t, err, "the configuration has changed: ")
	r2 := startPrivate(t, c)
	require.Empty(t, r2.Warnings())
	require.Equal(t, int64(r.total), r2.Claim().Steps)
	require.NoError(t, r2.Close())
	require.NoError(t, os.RemoveAll(filepath.Join(c.Out, privacy.Dir, "state")))
	for _, c := range []Config{c, changed} {
		_, err = Start(context.Background(), newTiny(), loss.BCE{}, Data{of(7, examples(60)), examples(10)}, c)
		require.ErrorContains(t, err, "private has charged 2 steps, but there is no state to tell of what")
	}
}

// A run with privacy is not resumed without, nor the other way round.
func TestResumeOtherKind(t *testing.T) {
	with, without := privateConfig(t), config(t)
	some(t, startPrivate(t, with), 1)
	r, err := Start(context.Background(), newTiny(), loss.BCE{}, Data{of(7, examples(60)), examples(10)}, without)
	require.NoError(t, err)
	for range r.Steps() {
		break
	}
	require.NoError(t, r.Err())
	require.NoError(t, r.Close())
	with.Out, without.Out = without.Out, with.Out
	for want, c := range map[string]Config{"is without privacy, which the configuration has (state)": with, "has privacy, which the configuration has not (private)": without} {
		c.Resume = true
		_, err := Start(context.Background(), newTiny(), loss.BCE{}, Data{of(7, examples(60)), examples(10)}, c)
		require.ErrorContains(t, err, want)
	}
}

// Whose a query is decides what is drawn and clipped together: other owners are other data.
func TestDigestOfOwners(t *testing.T) {
	digest := func(users ...string) string {
		e := encodedTiny(t, newTiny(), len(users))
		for i, u := range users {
			e.Units[i].User = u
		}
		e, err := e.ByUser()
		require.NoError(t, err)
		require.Equal(t, 2, e.Owners)
		return digestOf(e)
	}
	require.NotEqual(t, digest("a", "a", "b"), digest("a", "b", "b"))
	require.Equal(t, digest("a", "a", "b"), digest("c", "c", "d"))
}

// carded is a model that was opened from a directory with a claim.
type carded struct {
	ids
	claim string
}

func (c carded) Card() *arch.Card { return &arch.Card{Privacy: []byte(c.claim)} }

// A base that has spent something itself is no public one, and a claim says what its maker took to be public.
func TestClaimOfBase(t *testing.T) {
	c := privateConfig(t)
	c.Privacy.Given = []string{"how it was thinned"}
	r, err := Start(context.Background(), carded{newTiny(), "{}"}, loss.BCE{}, Data{examples(60), nil}, noDev(c))
	require.NoError(t, err)
	require.Contains(t, r.Claim().Public, "the base model, which has a claim of its own: what both say of the same units adds up")
	require.Contains(t, r.Claim().Public, "how it was thinned")
	require.Contains(t, r.Warnings(), "privacy: the base model was trained with privacy itself: on the same units, what it spent adds to ε")

	// Of one that is made of this and of something without a claim nothing is known.
	b, err := json.Marshal(privacy.Combined([]*privacy.Claim{r.Claim(), nil}))
	require.NoError(t, err)
	require.NoError(t, r.Close())
	r, err = Start(context.Background(), carded{newTiny(), string(b)}, loss.BCE{}, Data{examples(60), nil}, noDev(privateConfig(t)))
	require.NoError(t, err)
	require.Contains(t, r.Claim().Public, "the base model, of which as a whole no privacy is claimed (part 2 of 2 has no claim, so that nothing bounds what it tells): what it tells of the same units is not counted")
	require.Contains(t, r.Warnings(), "privacy: no privacy is claimed of the base model as a whole (part 2 of 2 has no claim, so that nothing bounds what it tells): where it saw the same units, ε does not hold")
	require.NoError(t, r.Close())
}

func noDev(c Config) Config {
	c.KeepBest, c.Patience = "", 0
	return c
}

// The program is known by its bytes.
func TestProgram(t *testing.T) {
	path, err := os.Executable()
	require.NoError(t, err)
	sum, err := hashFile(path)
	require.NoError(t, err)
	require.Equal(t, sum, program())
	require.Len(t, sum, 64)
	require.NotEqual(t, trail{How: "a", Past: "b"}.context(), trail{How: "b"}.context())
}
