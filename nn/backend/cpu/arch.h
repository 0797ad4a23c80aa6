// What a processor's architecture has: instruction sets, those of them that round the factors of products to bf16, and a
// way to wait without work.
#ifdef __aarch64__
enum { RUNG_neon, RUNG_ISAS };
#define VERSIONS(F, name) F(name, neon)
#define ROUNDED(F, name)
#define WAIT() __asm__ volatile("isb") // yield does nothing on most
#else
enum { RUNG_avx2, RUNG_avx512, RUNG_bf16, RUNG_amx, RUNG_ISAS };
#define VERSIONS(F, name) F(name, avx2) F(name, avx512)
#if defined __clang__ ? __clang_major__ >= 12 : __GNUC__ >= 11 // which know AMX
#define RUNG_ROUNDED
#define ROUNDED(F, name) F(name, bf16) F(name, amx)
#else
#define ROUNDED(F, name)
#endif
#define WAIT() __builtin_ia32_pause()
#endif
