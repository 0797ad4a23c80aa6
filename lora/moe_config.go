package lora

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"rung/nn/backend"
)

// Mixture is the kind of adapters of several experts, of which a router chooses some for each row.
const Mixture = "moe-lora"

// What the choice of experts goes by.
const (
	RouteToken    = "token"    // each row for itself
	RouteSequence = "sequence" // the mean of a sequence's rows, for all of them
	RouteDomain   = "domain"   // a column of the examples says it
	RouteRank     = "rank"     // each row for itself; an expert is one rank of the adapter (SMoRA)
)

// What keeps the use of experts even.
const (
	BalanceNone       = "none"
	BalanceSwitch     = "switch"     // E Σ_e f_e P_e, f of first choices (Fedus et al. 2022, equation 4; GShard)
	BalanceTopK       = "topk"       // the same, f of all choices by k: 1 where even
	BalanceMixtral    = "mixtral"    // the same, f of all choices: k where even, as Transformers has it
	BalanceImportance = "importance" // squared variation of the sums of gates (Shazeer et al. 2017, equation 7)
	BalanceBias       = "bias"       // no loss: a bias of the choice is moved after each update (Wang et al. 2024)
)

// Experts is what a mixture has beside the settings of plain LoRA, whose Rank is that of one expert.
type Experts struct {
	Experts       int      `yaml:"experts"` // E
	TopK          int      `yaml:"top_k"`   // experts of a row; with RouteRank: ranks of a row
	Router        string   `yaml:"router"`
	Balance       string   `yaml:"balance"`
	BalanceWeight float64  `yaml:"balance_weight"` // of the mean over layers of the balancing loss
	BiasRate      float64  `yaml:"bias_rate"`      // of BalanceBias: what an update moves a bias by
	ZLoss         float64  `yaml:"z_loss"`         // weight of the mean over layers of the router z-loss (Zoph et al. 2022)
	SharedA       bool     `yaml:"shared_a"`       // one A for all experts (Tian et al. 2024, HydraLoRA)
	SharedExperts int      `yaml:"shared_experts"` // with RouteDomain: of the E, those that every row goes to (Agiza et al. 2024, MTLoRA)
	Domains       []string `yaml:"domains"`        // with RouteDomain: the values of the column, one for each expert that is not shared
	Partition     int      `yaml:"rank_partition"` // with RouteRank: ranks that share a logit
}

// MixtureDefaults is eight experts of rank 8, α 16, of which two are chosen for each token, balanced by Switch's loss.
func MixtureDefaults() Config {
	return Config{
		Kind: Mixture, Rank: 8, Alpha: 16, Targets: []string{AllLinear}, Bias: BiasNone,
		Mixture: Experts{Experts: 8, TopK: 2, Router: RouteToken, Balance: BalanceSwitch, BalanceWeight: .01, BiasRate: 1e-3, Partition: 1},
	}
}

// checkMixture tells what is wrong with the settings of a mixture.
func (c *Config) checkMixture() error {
	x := &c.Mixture
	one := func(key, v string, of ...string) error {
		if !slices.Contains(of, v) {
			return fmt.Errorf("%s is %q, want one of %s", key, v, strings.Join(of, ", "))
		}
		return nil
	}
	if err := one("router", x.Router, RouteToken, RouteSequence, RouteDomain, RouteRank); err != nil {
		return err
	}
	if err := one("balance", x.Balance, BalanceNone, BalanceSwitch, BalanceTopK, BalanceMixtral, BalanceImportance, BalanceBias); err != nil {
		return err
	}
	for key, v := range map[string]float64{"balance_weight": x.BalanceWeight, "bias_rate": x.BiasRate, "z_loss": x.ZLoss} {
		if !(v >= 0 && v <= math.MaxFloat32) {
			return fmt.Errorf("%s is %v, want a finite number of 0 or more, in single precision", key, v)
		}
	}
	switch {
	case x.Experts < 1 || x.Experts > backend.MaxExperts:
		return fmt.Errorf("experts is %d, want 1 to %d", x.Experts, backend.MaxExperts)
	case x.Balance == BalanceBias && x.BiasRate == 0:
		return fmt.Errorf("bias_rate is 0: balance %s would never move a bias", BalanceBias)
	case x.SharedExperts < 0:
		return fmt.Errorf("shared_experts is %d, want 0 or more", x.SharedExperts)
	case len(c.RankPattern) > 0 && x.Router == RouteRank:
		return fmt.Errorf("rank_pattern does not go with router %s: top_k is of one rank", RouteRank)
	case x.Router != RouteDomain && x.SharedExperts > 0:
		return fmt.Errorf("shared_experts goes with router %s only", RouteDomain)
	case x.Router != RouteDomain && len(x.Domains) > 0:
		return fmt.Errorf("domains go with router %s only", RouteDomain)
	case x.Router != RouteRank && x.Partition > 1:
		return fmt.Errorf("rank_partition goes with router %s only", RouteRank)
	}
	switch x.Router {
	case RouteDomain:
		return x.checkDomains()
	case RouteRank:
		return x.checkRanks(c.Rank)
	}
	if x.TopK < 1 || x.TopK > x.Experts {
		return fmt.Errorf("top_k is %d of %d experts", x.TopK, x.Experts)
	}
	return nil
}

func (x *Experts) checkDomains() error {
	switch n := x.Experts - x.SharedExperts; {
	case n < 1:
		return fmt.Errorf("shared_experts is %d of %d experts: none is left for a domain", x.SharedExperts, x.Experts)
	case len(x.Domains) != n:
		return fmt.Errorf("%d domains for %d experts that are not shared: name one for each", len(x.Domains), n)
	case x.routes():
		return fmt.Errorf("router %s learns nothing: balance has to be %s, and z_loss 0", RouteDomain, BalanceNone)
	}
	for i, d := range x.Domains {
		if d == "" || slices.Contains(x.Domains[:i], d) {
			return fmt.Errorf("domain %q is empty or named twice", d)
		}
	}
	return nil
}

func (x *Experts) checkRanks(rank int) error {
	switch {
	case x.Partition < 1 || rank%x.Partition != 0:
		return fmt.Errorf("rank_partition is %d, which does not divide rank %d", x.Partition, rank)
	case x.TopK < 1 || x.TopK > rank || rank > backend.MaxExperts:
		return fmt.Errorf("top_k is %d of rank %d, which is at most %d", x.TopK, rank, backend.MaxExperts)
	case x.SharedA:
		return fmt.Errorf("shared_a does not go with router %s, which has one A", RouteRank)
	case x.ZLoss > 0 || !slices.Contains([]string{BalanceNone, BalanceBias}, x.Balance):
		return fmt.Errorf("router %s is balanced by %s, or not: its sigmoids are no distribution for %s or z_loss", RouteRank, BalanceBias, x.Balance)
	}
	return nil
}

// routes reports that something keeps a learned router even.
func (x *Experts) routes() bool { return x.Balance != BalanceNone || x.ZLoss > 0 }

// Couples says why the gradient of a unit depends on the other units of its batch, which privacy cannot allow; "" where
// it does not.
func (c Config) Couples() string {
	x := &c.Mixture
	switch {
	case c.Kind != Mixture:
		return ""
	case x.Balance == BalanceBias:
		return fmt.Sprintf("%s with balance %s: how a batch uses the experts moves the biases", Mixture, BalanceBias)
	case x.Balance != BalanceNone && x.Balance != BalanceBias && x.BalanceWeight > 0:
		return fmt.Sprintf("%s with balance %s: its loss is of how a whole batch uses the experts", Mixture, x.Balance)
	case x.ZLoss > 0:
		return fmt.Sprintf("%s with z_loss: its mean is over all rows of a batch", Mixture)
	}
	return ""
}

// mixtureType is the peft_type of a mixture, quoted. PEFT has none: it refuses a directory of a type that it does not
// know, where it would read experts as one plain adapter.
const mixtureType = `"MOE_LORA"`

// keys are the fields of a mixture in adapter_config.json.
func (x *Experts) keys() map[string]any {
	return map[string]any{
		"num_experts": &x.Experts, "top_k": &x.TopK, "router": &x.Router, "balance": &x.Balance,
		"balance_weight": &x.BalanceWeight, "bias_rate": &x.BiasRate, "z_loss": &x.ZLoss, "shared_a": &x.SharedA,
		"shared_experts": &x.SharedExperts, "domains": &x.Domains, "rank_partition": &x.Partition,
	}
}

// fields adds those of a mixture to an adapter_config.json.
func (x *Experts) fields(m map[string]any) {
	m["peft_type"] = "MOE_LORA"
	for name, v := range x.keys() {
		switch v := v.(type) {
		case *float64:
			m[name] = pyFloat(*v)
		case *[]string:
			m[name] = listOr(*v, "")
		default:
			m[name] = v
		}
	}
}

// mixture reads those fields, all of which have to be there.
func (f *fields) mixture(c *Config) {
	if string(f.raw["peft_type"]) != mixtureType {
		return
	}
	if c.Kind != Plain {
		f.fail("use_dora is true: a mixture has no such experts")
	}
	c.Kind = Mixture
	keys := c.Mixture.keys()
	for _, name := range sortedKeys(keys) {
		if _, ok := f.raw[name]; !ok {
			f.fail("%s is missing", name)
		}
		f.get(name, keys[name])
	}
}

// About says how experts are chosen. It is no String: fingerprints print every field.
func (x Experts) About() string {
	switch x.Router {
	case RouteDomain:
		return fmt.Sprintf("%d, one for each of the domains %s, %d for all", x.Experts, strings.Join(x.Domains, ", "), x.SharedExperts)
	case RouteRank:
		return fmt.Sprintf("ranks, of which %d are chosen by token, balance %s", x.TopK, x.Balance)
	}
	return fmt.Sprintf("%d, of which %d are chosen by %s, balance %s", x.Experts, x.TopK, x.Router, x.Balance)
}
