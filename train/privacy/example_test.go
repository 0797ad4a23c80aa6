package privacy_test

import (
	"fmt"

	"rung/train/privacy"
)

// What a plan spends, and the noise that a target needs.
func Example() {
	plan := []privacy.Phase{{Q: .01, Sigma: 1, Steps: 1000}}
	const delta = 1e-5
	e, err := privacy.Epsilon(plan, delta)
	if err != nil {
		fmt.Println(err)
		return
	}
	rdp, order, _ := privacy.EpsilonRDP(plan, delta)
	fmt.Printf("ε %.2f, by RDP %.2f (order %g)\n", e, rdp, order)

	sigma, err := privacy.Sigma(.01, 1000, delta, 1)
	fmt.Printf("σ %.2f for ε 1 %v\n", sigma, err)

	// Later steps with more noise: they compose.
	e, err = privacy.Epsilon(append(plan, privacy.Phase{Q: .01, Sigma: 2, Steps: 1000}), delta)
	fmt.Printf("ε %.2f %v\n", e, err)
	// Output:
	// ε 1.83, by RDP 2.10 (order 7.8)
	// σ 1.41 for ε 1 <nil>
	// ε 1.95 <nil>
}
