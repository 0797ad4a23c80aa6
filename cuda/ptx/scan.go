package ptx

import (
	"fmt"
	"strconv"
	"strings"
)

// An item is a piece of a function's body: a statement without its semicolon, a label (with its colon), "{" or "}".
type item struct {
	text string
	line int
}

// withoutComments replaces comments by spaces; lines stay where they are.
func withoutComments(text string) string {
	b := []byte(text)
	for i := 0; i+1 < len(b); i++ {
		end := -1
		switch string(b[i : i+2]) {
		case "//":
			end = strings.IndexByte(text[i:], '\n')
		case "/*":
			if end = strings.Index(text[i+2:], "*/"); end >= 0 {
				end += 4
			}
		default:
			continue
		}
		if end < 0 {
			end = len(b) - i
		}
		for ; end > 0; i, end = i+1, end-1 {
			if b[i] != '\n' {
				b[i] = ' '
			}
		}
		i--
	}
	return string(b)
}

// A scanner walks over PTX text without comments.
type scanner struct {
	text string
	pos  int
	line int
}

func (s *scanner) advance(to int) {
	s.line += strings.Count(s.text[s.pos:to], "\n")
	s.pos = to
}

func (s *scanner) space() {
	i := s.pos
	for i < len(s.text) && strings.IndexByte(" \t\r\n", s.text[i]) >= 0 {
		i++
	}
	s.advance(i)
}

// until returns the text up to the first of the characters that is not in parentheses, and moves to it.
func (s *scanner) until(chars string) (string, error) {
	depth := 0
	for i := s.pos; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case depth == 0 && strings.IndexByte(chars, c) >= 0:
			head := s.text[s.pos:i]
			s.advance(i)
			return head, nil
		case c == '(':
			depth++
		case c == ')':
			depth--
		}
	}
	return "", fmt.Errorf("ptx: line %d: no %q before the end of the text", s.line, chars)
}

// body returns what a function's braces hold, and moves behind them.
func (s *scanner) body() ([]item, error) {
	var items []item
	depth, start, first := 0, s.pos, s.line
	for i, line := s.pos, s.line; i < len(s.text); i++ {
		c := s.text[i]
		if c == '\n' {
			line++
		}
		head := strings.TrimSpace(s.text[start:i])
		if head == "" {
			first = line
		}
		switch {
		case c == '\n' && (strings.HasPrefix(head, ".loc") || strings.HasPrefix(head, ".file")):
			start = i + 1
		case (c == '{' || c == '}') && head == "":
			if c == '{' {
				depth++
			} else {
				depth--
			}
			items, start = append(items, item{string(c), line}), i+1
			if depth == 0 {
				s.advance(i + 1)
				return items[1 : len(items)-1], nil
			}
		case c == ':' && isLabel(head) && !strings.HasPrefix(s.text[i:], "::") && !strings.HasSuffix(s.text[:i], ":"):
			items, start = append(items, item{head + ":", first}), i+1
		case c == ';':
			items, start = append(items, item{strings.Join(strings.Fields(head), " "), first}), i+1
		}
	}
	return nil, fmt.Errorf("ptx: line %d: a function's braces do not close", s.line)
}

func isLabel(s string) bool { return s != "" && !strings.ContainsAny(s, " \t\n.@%{}[],") }

// split cuts operands apart at the commas that are in no bracket.
func split(s string) (out []string) {
	depth, start := 0, 0
	for i, c := range s {
		switch c {
		case '{', '[', '(':
			depth++
		case '}', ']', ')':
			depth--
		case ',':
			if depth == 0 {
				out = append(out, strings.TrimSpace(s[start:i]))
				start = i + 1
			}
		}
	}
	if last := strings.TrimSpace(s[start:]); last != "" {
		out = append(out, last)
	}
	return out
}

// typeSize is the size in bytes of a type such as "f32"; 0 where it is none.
func typeSize(t string) int {
	switch t {
	case "pred", "b8", "u8", "s8":
		return 1
	case "b16", "u16", "s16", "f16", "bf16":
		return 2
	case "b32", "u32", "s32", "f32", "f16x2", "bf16x2", "tf32":
		return 4
	case "b64", "u64", "s64", "f64":
		return 8
	}
	return 0
}

// A variable is memory with a name: of a module, a function, or a parameter.
type variable struct {
	name, space, typ string
	align, size      int
	offset           int    // in its space
	dynamic          bool   // shared memory that the launch gives
	init             []byte // of a module's variable
}

// declaration reads ".space .align n .type name[n][m] = values" and its kin.
func declaration(s string) (v variable, err error) {
	head, init, _ := strings.Cut(s, "=")
	head = strings.ReplaceAll(head, "[", " [")
	count, lanes := 1, 1
	bad := func() (variable, error) { return v, fmt.Errorf("declaration not understood: %q", s) }
	words := strings.Fields(head)
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case w == ".shared" || w == ".global" || w == ".const" || w == ".local" || w == ".param":
			if v.space == "" {
				v.space = w[1:]
			}
		case w == ".align" && i+1 < len(words):
			if i++; v.align == 0 {
				if v.align, err = strconv.Atoi(words[i]); err != nil || v.align <= 0 {
					return bad()
				}
			} // else: that of what a pointer points at
		case w == ".ptr" || w == ".visible" || w == ".extern" || w == ".weak" || w == ".common":
		case w == ".v2" || w == ".v4":
			lanes = int(w[2] - '0')
		case w[0] == '.' && typeSize(w[1:]) > 0:
			v.typ = w[1:]
		case w[0] == '[':
			if w == "[]" {
				count, v.dynamic = 0, true
				break
			}
			n, err := strconv.Atoi(strings.Trim(w, "[]"))
			if err != nil || n < 0 || n > 1<<30 || w[len(w)-1] != ']' {
				return bad()
			}
			count *= n
		case w[0] != '.' && v.name == "":
			v.name = w
		default:
			return bad()
		}
	}
	if v.name == "" || v.typ == "" || v.space == "" {
		return bad()
	}
	each := typeSize(v.typ)
	v.size = count * lanes * each
	if v.align == 0 {
		v.align = each * lanes
	}
	if init != "" {
		for _, text := range split(strings.NewReplacer("{", "", "}", "").Replace(init)) {
			n, err := number(text)
			if err != nil || len(v.init)+each > v.size {
				return bad()
			}
			bits := n.bits
			if v.typ == "f32" {
				bits = uint64(n.float32())
			}
			for b := range each {
				v.init = append(v.init, byte(bits>>(8*b)))
			}
		}
	}
	return v, nil
}

// place gives a variable its offset behind what a space holds already.
func (v *variable) place(used *int) {
	*used = (*used + v.align - 1) / v.align * v.align
	v.offset = *used
	*used += v.size
}

// A constant is a number of the text: an integer, or the bits of a float32 or float64.
type constant struct {
	bits   uint64
	double bool // bits are those of a float64
}

// float32 is the constant as an operand of type f32.
func (c constant) float32() uint32 {
	if c.double {
		return f32bits(float32(f64(c.bits)))
	}
	return uint32(c.bits)
}

// number reads a constant: 12, -3, 0x1fU, 0f3F800000, 0d3FF0000000000000, 1.5.
func number(s string) (constant, error) {
	if len(s) > 2 && s[0] == '0' {
		switch s[1] {
		case 'f', 'F':
			u, err := strconv.ParseUint(s[2:], 16, 32)
			return constant{bits: u}, err
		case 'd', 'D':
			u, err := strconv.ParseUint(s[2:], 16, 64)
			return constant{bits: u, double: true}, err
		}
	}
	s = strings.TrimSuffix(s, "U")
	if strings.HasPrefix(s, "-") && !strings.Contains(s, ".") {
		n, err := strconv.ParseInt(s, 0, 64)
		return constant{bits: uint64(n)}, err
	}
	if strings.Contains(s, ".") {
		f, err := strconv.ParseFloat(s, 64)
		return constant{bits: f64bits(f), double: true}, err
	}
	n, err := strconv.ParseUint(s, 0, 64)
	return constant{bits: n}, err
}
