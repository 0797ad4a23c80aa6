package ptx

// A handler compiles the instructions of an opcode.
type handler func(b *builder, s *statement, in *instruction)

// handlerOf is the handler of an opcode's first part, nil where it is not known.
func handlerOf(op string) handler {
	switch op {
	case "mov":
		return opMov
	case "ld", "ldu":
		return opLoad
	case "st":
		return opStore
	case "cvta":
		return opCvta
	case "isspacep":
		return opIsspacep
	case "prefetch", "prefetchu", "discard", "nanosleep":
		return opNothing
	case "atom", "red":
		return opAtom
	case "membar", "fence":
		return opFence
	case "cp":
		return opAsync
	case "add", "sub", "mul", "div", "rem", "min", "max":
		return opArithmetic
	case "mad", "fma":
		return opMad
	case "mul24", "mad24":
		return opMul24
	case "sad":
		return opSad
	case "abs", "neg", "not", "cnot", "brev":
		return opUnary
	case "and", "or", "xor":
		return opLogic
	case "shl", "shr":
		return opShift
	case "popc", "clz", "bfind":
		return opCount
	case "bfe", "bfi":
		return opBitField
	case "lop3":
		return opLop3
	case "shf":
		return opFunnel
	case "prmt":
		return opPermute
	case "dp4a":
		return opDot4
	case "rcp", "sqrt", "rsqrt", "ex2", "lg2", "sin", "cos", "tanh":
		return opFunction
	case "copysign":
		return opCopysign
	case "testp":
		return opTestp
	case "cvt":
		return opCvt
	case "setp":
		return opSetp
	case "set":
		return opSet
	case "selp":
		return opSelp
	case "slct":
		return opSlct
	case "bra":
		return opBranch
	case "ret", "exit":
		return opReturn
	case "trap", "brkpt":
		return opTrap
	case "__assertfail":
		return opAssert
	case "bar", "barrier":
		return opBarrier
	case "shfl":
		return opShuffle
	case "vote":
		return opVote
	case "activemask":
		return opActivemask
	case "match":
		return opMatch
	case "redux":
		return opRedux
	case "mma":
		return opMMA
	case "ldmatrix":
		return opLdmatrix
	}
	return nil
}
