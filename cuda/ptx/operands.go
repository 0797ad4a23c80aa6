package ptx

// This file turns operands into rows of the register file: constants, special registers and addresses have rows too.

// want fails unless a statement has from least to most operands.
func (b *builder) want(s *statement, least, most int) bool {
	if len(s.args) < least || len(s.args) > most {
		b.fail("%d operands", len(s.args))
		return false
	}
	return true
}

// allow fails where a statement has a modifier that is not in the list.
func (b *builder) allow(s *statement, mods ...string) {
	for _, m := range s.mods {
		known := false
		for _, a := range mods {
			known = known || a == m
		}
		if !known {
			b.fail("unknown modifier .%s", m)
		}
	}
}

func (b *builder) const32row(v uint32) int {
	if row, ok := b.const32[v]; ok {
		return row
	}
	row := b.scratch32()
	b.const32[v] = row
	b.k.consts32 = append(b.k.consts32, constRow[uint32]{row, v})
	return row
}

func (b *builder) const64row(v uint64) int {
	if row, ok := b.const64[v]; ok {
		return row
	}
	row := b.scratch64()
	b.const64[v] = row
	b.k.consts64 = append(b.k.consts64, constRow[uint64]{row, v})
	return row
}

func (b *builder) scratch32() int { b.k.rows32++; return b.k.rows32 - 1 }
func (b *builder) scratch64() int { b.k.rows64++; return b.k.rows64 - 1 }
func (b *builder) scratchPred() int {
	b.k.preds++
	return b.k.preds - 1
}

// in32 is the row of an operand of up to 32 bits.
func (b *builder) in32(o operand, typ string) int {
	switch o.kind {
	case opRegister:
		if o.reg.class == c32 && !o.not {
			return o.reg.row
		}
	case opConstant:
		v := uint32(o.value.bits)
		if typ == "f32" {
			v = o.value.float32()
		} else if n := typeSize(typ); n < 4 {
			v &= 1<<(8*n) - 1
		}
		return b.const32row(v)
	case opSpecial:
		return b.specialRow(o.text)
	case opSymbol:
		if o.symbol.space == "shared" { // 32-bit addresses of shared memory
			return b.low(b.symbolRow(o.symbol, o.offset))
		}
	}
	b.fail("%s is no operand of type .%s", o.text, typ)
	return 0
}

// in64 is the row of an operand of 64 bits.
func (b *builder) in64(o operand, typ string) int {
	switch o.kind {
	case opRegister:
		if o.reg.class == c64 && !o.not {
			return o.reg.row
		}
	case opConstant:
		v := o.value.bits
		if typ == "f64" && !o.value.double {
			b.fail("%s is no double", o.text)
		}
		return b.const64row(v)
	case opSymbol:
		return b.symbolRow(o.symbol, o.offset)
	case opSpecial:
		if o.text == "%clock64" || o.text == "%globaltimer" {
			return b.const64row(0)
		}
	}
	b.fail("%s is no operand of type .%s", o.text, typ)
	return 0
}

// inPred is the index of a predicate operand.
func (b *builder) inPred(o operand) (index int, not bool) {
	switch {
	case o.kind == opRegister && o.reg.class == cPred:
		return o.reg.row, o.not
	case o.kind == opConstant:
		return b.falsePred(), o.value.bits != 0
	}
	b.fail("%s is no predicate", o.text)
	return 0, false
}

// falsePred is a predicate that nothing writes.
func (b *builder) falsePred() int {
	if _, ok := b.special["false"]; !ok {
		b.special["false"] = b.scratchPred()
	}
	return b.special["false"]
}

func (b *builder) out32(o operand) int {
	switch {
	case o.kind == opRegister && o.reg.class == c32 && !o.not:
		return o.reg.row
	case o.kind == opSink:
		return b.scratch32()
	}
	b.fail("%s cannot be written as 32 bits", o.text)
	return 0
}

func (b *builder) out64(o operand) int {
	switch {
	case o.kind == opRegister && o.reg.class == c64 && !o.not:
		return o.reg.row
	case o.kind == opSink:
		return b.scratch64()
	}
	b.fail("%s cannot be written as 64 bits", o.text)
	return 0
}

func (b *builder) outPred(o operand) int {
	switch {
	case o.kind == opRegister && o.reg.class == cPred && !o.not:
		return o.reg.row
	case o.kind == opSink:
		return b.scratchPred()
	}
	b.fail("%s cannot be written as a predicate", o.text)
	return 0
}

// specials that are known; see warp.begin and Kernel.template.
var specialNames = map[string]bool{
	"%tid.x": true, "%tid.y": true, "%tid.z": true, "%ntid.x": true, "%ntid.y": true, "%ntid.z": true,
	"%ctaid.x": true, "%ctaid.y": true, "%ctaid.z": true, "%nctaid.x": true, "%nctaid.y": true, "%nctaid.z": true,
	"%laneid": true, "%warpid": true, "%nwarpid": true, "WARP_SZ": true, "%smid": true, "%nsmid": true, "%clock": true,
	"%lanemask_eq": true, "%lanemask_lt": true, "%lanemask_le": true, "%lanemask_gt": true, "%lanemask_ge": true,
	"%dynamic_smem_size": true, "%total_smem_size": true,
}

func (b *builder) specialRow(name string) int {
	if row, ok := b.special[name]; ok {
		return row
	}
	if !specialNames[name] {
		b.fail("unknown register %s", name)
		return 0
	}
	row := b.scratch32()
	b.special[name] = row
	b.k.specials = append(b.k.specials, specialRow{row, name})
	return row
}

// symbolRow is the row that holds a variable's address in its space. Addresses of shared and local memory are offsets.
func (b *builder) symbolRow(v *variable, offset int64) int {
	key := symbolKey{v, offset}
	if row, ok := b.symbol[key]; ok {
		return row
	}
	row := b.newSymbolRow(v, offset)
	b.symbol[key] = row
	return row
}

type symbolKey struct {
	v      *variable
	offset int64
}

func (b *builder) newSymbolRow(v *variable, offset int64) int {
	switch v.space {
	case "shared":
		if v.dynamic {
			row := b.scratch64()
			b.dynamic = append(b.dynamic, constRow[uint64]{row, uint64(offset)})
			return row
		}
		at, placed := b.sharedAt[v]
		if !placed {
			here := *v // another kernel places it elsewhere
			here.place(&b.k.sharedBytes)
			at = here.offset
			b.sharedAt[v] = at
		}
		return b.const64row(uint64(int64(at) + offset))
	case "global", "const":
		row := b.scratch64()
		b.k.symbols = append(b.k.symbols, symbolRow{row, v.name, offset})
		return row
	}
	return b.const64row(uint64(int64(v.offset) + offset))
}

// low is a row with the lower halves of a row that does not change.
func (b *builder) low(row64 int) int {
	row := b.scratch32()
	b.k.lows = append(b.k.lows, [2]int{row, row64})
	return row
}

// An addressing is where an access goes: the row of a base of 32 or 64 bits, and an offset.
type addressing struct {
	row    int
	wide   bool
	offset uint64
}

func (b *builder) addressOf(o operand) addressing {
	switch {
	case o.kind != opAddress:
		b.fail("%s is no address", o.text)
	case o.based && o.reg.class == c64:
		return addressing{o.reg.row, true, uint64(o.offset)}
	case o.based && o.reg.class == c32:
		return addressing{o.reg.row, false, uint64(o.offset)}
	case o.based:
		b.fail("%s is no address", o.text)
	case o.symbol != nil:
		return addressing{b.symbolRow(o.symbol, 0), true, uint64(o.offset)}
	}
	return addressing{b.const64row(0), true, uint64(o.offset)}
}
