package privacy

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// claimed is a claim on terms that are changed.
func claimed(t *testing.T, change func(*Terms)) *Claim {
	on := terms()
	change(&on)
	c, err := NewClaim(on, []Phase{{.04, 1, 100}})
	require.NoError(t, err)
	return &c
}

// Of models that protect the same units ε and δ add up, however often.
func TestCombined(t *testing.T) {
	a := claimed(t, func(*Terms) {})
	b := claimed(t, func(x *Terms) { x.Units, x.Delta, x.Public = 500, 1e-5, []string{"the base model"} })
	c := Combined([]*Claim{a, b})
	require.InEpsilon(t, *a.Epsilon+*b.Epsilon, *c.Epsilon, 1e-12)
	require.GreaterOrEqual(t, *c.Epsilon, *a.Epsilon+*b.Epsilon)
	require.InEpsilon(t, 1.1e-4, c.Delta, 1e-12)
	require.Equal(t, a.Unit, c.Unit)
	require.Equal(t, []string{"the number of units", "the dev set", "the base model"}, c.Public)
	require.NoError(t, c.Check())
	require.NoError(t, c.Verify())
	for _, want := range []string{"together ε = " + Up(*c.Epsilon), "δ = 0.00011.", "add up, whether their data overlap or not", "(1) Trained with", "(2) Trained with", "There are 500 units"} {
		require.Contains(t, c.String(), want)
	}
	require.NotContains(t, c.String(), "\n")

	raw, err := CombinedJSON([]json.RawMessage{marshal(t, a), marshal(t, b)})
	require.NoError(t, err)
	var back Claim
	require.NoError(t, json.Unmarshal(raw, &back))
	require.Equal(t, *c, back)
	thrice := Combined([]*Claim{c, a})
	require.InEpsilon(t, 2**a.Epsilon+*b.Epsilon, *thrice.Epsilon, 1e-12)
	require.NoError(t, thrice.Check())
	require.Same(t, a, Combined([]*Claim{a}))

	// One that says less is none.
	less := *c
	less.Epsilon = a.Epsilon
	require.ErrorContains(t, less.Check(), "but its parts cost ε")
	less = *c
	less.Delta = 1e-4
	require.ErrorContains(t, less.Check(), "but its parts cost ε")
	low := *a
	tiny := .01
	low.Epsilon = &tiny
	require.ErrorContains(t, Combined([]*Claim{&low, b}).Verify(), "but its steps cost")
	_, err = CombinedJSON([]json.RawMessage{marshal(t, b), marshal(t, &low)})
	require.EqualError(t, err, fmt.Sprintf("part 2 of 2: privacy: claim: it says ε 0.01, but its steps cost %v", *a.Epsilon))
	for want, change := range map[string]func(c *Claim){
		"501 units": func(c *Claim) { c.Units++ },
		"0 units":   func(c *Claim) { c.Units = 0 },
		"replace":   func(c *Claim) { c.Adjacency = "replace one unit" },
		"δ 0.9":     func(c *Claim) { c.Delta = .9 },
		"no ε":      func(c *Claim) { c.Epsilon = nil },
	} {
		other := *c
		change(&other)
		require.ErrorContains(t, other.Check(), want)
	}
}

func TestCombinedOfNothing(t *testing.T) {
	a := claimed(t, func(*Terms) {})
	for want, b := range map[string]*Claim{
		"part 2 of 2 has no claim":                                   nil,
		"of part 2 of 2 none is":                                     claimed(t, func(x *Terms) { x.Insecure = true }),
		"different units, a query with all its candidates and a row": claimed(t, func(x *Terms) { x.Unit = "a row" }),
		"δ adds up to 0.0013, at which one of 800 units":             claimed(t, func(x *Terms) { x.Delta = 1.2e-3 }),
	} {
		c := Combined([]*Claim{a, b})
		require.Nil(t, c.Epsilon)
		require.Contains(t, c.Why, want)
		require.True(t, strings.HasPrefix(c.String(), "No privacy is claimed of the whole: "+c.Why+". What is claimed of parts: (1) Trained with"))
		var back Claim
		require.NoError(t, json.Unmarshal(marshal(t, c), &back))
		require.Equal(t, *c, back)
		require.NoError(t, back.Verify())
		back.Epsilon = a.Epsilon
		require.ErrorContains(t, back.Check(), "though none is claimed")
		require.Nil(t, Combined([]*Claim{c, a}).Epsilon)
	}
	require.Nil(t, Combined([]*Claim{nil, nil}))
	raw, err := CombinedJSON([]json.RawMessage{nil, nil})
	require.NoError(t, err)
	require.Nil(t, raw)
	_, err = CombinedJSON([]json.RawMessage{nil, json.RawMessage(`{}`)})
	require.Error(t, err)
}

func marshal(t *testing.T, c *Claim) json.RawMessage {
	b, err := json.Marshal(c)
	require.NoError(t, err)
	return b
}

// A foreign claim of several lines, of which one could be taken for another claim, is refused.
func TestClaimOfOneLine(t *testing.T) {
	for name, change := range map[string]func(*Claim){
		"unit":   func(c *Claim) { c.Unit += "\nprivacy  none is lost" },
		"public": func(c *Claim) { c.Public = []string{"a\x1b[2J"} },
		"why":    func(c *Claim) { c.Why = "\r" },
	} {
		c := claimed(t, func(*Terms) {})
		change(c)
		require.ErrorContains(t, c.Check(), "has control characters", name)
	}
}
