/* The pickle machine: every opcode, every global that is allowed, and what malicious pickles meet.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/limits.h"
#include "format/pickle.h"
#include "torch_writer.h"

typedef struct machine {
    ash_arena arena;
    ash_pickle m;
    ash_err err;
    ash_pickle_value v;
} machine;

static int run(machine *x, const void *p, size_t n)
{
    x->err = ASH_ERR_INIT;
    ash_arena_init(&x->arena, 1u << 26);
    ash_pickle_init(&x->m, "mem", &x->arena, &x->err);
    return ash_pickle_run(&x->m, p, n, 1000, &x->v);
}

static void stop(machine *x)
{
    ash_pickle_release(&x->m);
    ash_arena_release(&x->arena);
}

static void refuse(const void *p, size_t n, int code, const char *text)
{
    machine x;
    uint8_t *copy = malloc(n ? n : 1); /* so that a read past the end is seen */
    if (n) memcpy(copy, p, n);
    int rc = run(&x, copy, n);
    if (rc != code || !strstr(x.err.msg, text) || strncmp(x.err.msg, "mem: pickle: ", 13) != 0)
        fail_msg("wanted %d with '%s', got %d: %s", code, text, rc, x.err.msg);
    stop(&x);
    free(copy);
}

#define REFUSE(bytes, code, text) refuse(bytes, sizeof(bytes) - 1, code, text)

/* The value of "...", which the caller looks at; then stop(). */
#define RUN(x, bytes)                                                                              \
    do {                                                                                           \
        if (run(x, bytes, sizeof(bytes) - 1)) fail_msg("%s", (x)->err.msg);                        \
    } while (0)

static void test_values(void **state)
{
    machine x;
    RUN(&x, "\x80\x02N.");
    assert_int_equal(x.v.kind, ASH_PICKLE_NONE);
    stop(&x);
    RUN(&x,
        "\x80\x02("
        "K\xffM\xff\xffJ\xff\xff\xff\xff\x8a\x00\x8a\x01\xff\x8a\x08\0\0\0\0\0\0\0\x80\x88\x89t.");
    static const int64_t ints[] = {255, 65535, -1, 0, -1, INT64_MIN, 1, 0};
    assert_int_equal(x.v.kind, ASH_PICKLE_TUPLE);
    assert_int_equal(x.v.list->n, 8);
    for (size_t i = 0; i < 8; i++) assert_true(x.v.list->v[i].i == ints[i]);
    assert_int_equal(x.v.list->v[6].kind, ASH_PICKLE_BOOL);
    stop(&x);
    RUN(&x, "G\x3f\xf8\0\0\0\0\0\0.");
    assert_true(x.v.kind == ASH_PICKLE_FLOAT && x.v.f == 1.5);
    stop(&x);
    RUN(&x, "\x8a\x09\1\2\3\4\5\6\7\10\11.");
    assert_true(x.v.kind == ASH_PICKLE_LONG && x.v.s.n == 9);
    stop(&x);
    RUN(&x, "U\2hi.");
    assert_true(x.v.kind == ASH_PICKLE_STR && ash_str_eqc(x.v.s, "hi"));
    stop(&x);
    RUN(&x, "\x8f.");
    assert_int_equal(x.v.kind, ASH_PICKLE_SET);
    stop(&x);
    RUN(&x, "K\1K\2K\3\x87\x85.)."); /* what follows STOP is not run */
    stop(&x);
}

static void test_containers(void **state)
{
    machine x;
    RUN(&x, "](K\1K\2eK\3a.");
    assert_int_equal(x.v.kind, ASH_PICKLE_LIST);
    assert_int_equal(x.v.list->n, 3);
    assert_int_equal(x.v.list->v[2].i, 3);
    stop(&x);
    RUN(&x, "}X\1\0\0\0aK\1s(X\1\0\0\0bK\2X\1\0\0\0aK\3u.");
    assert_int_equal(ash_pickle_get(&x.v, "a")->i, 3); /* the last one counts, as in Python */
    assert_int_equal(ash_pickle_get(&x.v, "b")->i, 2);
    assert_null(ash_pickle_get(&x.v, "c"));
    stop(&x);
    RUN(&x, "]q\0(h\0h\0e."); /* a list that holds itself */
    assert_ptr_equal(x.v.list->v[1].list, x.v.list);
    stop(&x);
    RUN(&x, "(K\7r\0\0\0\0K\x08q\1j\0\0\0\0h\1t.");
    assert_int_equal(x.v.list->v[2].i, 7);
    assert_int_equal(x.v.list->v[3].i, 8);
    stop(&x);
    RUN(&x, "ccollections\nOrderedDict\n)R(K\1K\2u}K\3K\4sb."); /* with state, which is dropped */
    assert_int_equal(x.v.list->n, 2);
    stop(&x);
    RUN(&x, "ccollections\nOrderedDict\n]]K\1aK\2aa\x85R."); /* as Python 2 */
    assert_true(x.v.kind == ASH_PICKLE_DICT && x.v.list->n == 2 && x.v.list->v[1].i == 2);
    stop(&x);
    RUN(&x, "ccollections\nOrderedDict\n)\x81.");
    assert_int_equal(x.v.kind, ASH_PICKLE_DICT);
    stop(&x);
    RUN(&x, "ctorch\nSize\nK\1K\2\x86\x85R.");
    assert_true(x.v.kind == ASH_PICKLE_TUPLE && x.v.list->n == 2);
    stop(&x);
}

/* Every byte as an opcode: run, refused by its name, or no opcode at all. */
static void test_every_opcode(void **state)
{
    static const char known[] = "(.GJKMNQRUX]abcehjqrstu})\x80\x81\x85\x86\x87\x88\x89\x8a\x8f";
    static const struct {
        uint8_t op;
        const char *name;
    } refused[] = {{'0', "POP"},
                   {'1', "POP_MARK"},
                   {'2', "DUP"},
                   {'B', "BINBYTES"},
                   {'C', "SHORT_BINBYTES"},
                   {'F', "FLOAT"},
                   {'I', "INT"},
                   {'L', "LONG"},
                   {'P', "PERSID"},
                   {'S', "STRING"},
                   {'T', "BINSTRING"},
                   {'V', "UNICODE"},
                   {'d', "DICT"},
                   {'g', "GET"},
                   {'i', "INST"},
                   {'l', "LIST"},
                   {'o', "OBJ"},
                   {'p', "PUT"},
                   {0x82, "EXT1"},
                   {0x83, "EXT2"},
                   {0x84, "EXT4"},
                   {0x8B, "LONG4"},
                   {0x8C, "SHORT_BINUNICODE"},
                   {0x8D, "BINUNICODE8"},
                   {0x8E, "BINBYTES8"},
                   {0x90, "ADDITEMS"},
                   {0x91, "FROZENSET"},
                   {0x92, "NEWOBJ_EX"},
                   {0x93, "STACK_GLOBAL"},
                   {0x94, "MEMOIZE"},
                   {0x95, "FRAME"},
                   {0x96, "BYTEARRAY8"},
                   {0x97, "NEXT_BUFFER"},
                   {0x98, "READONLY_BUFFER"}};
    size_t n_refused = sizeof refused / sizeof *refused, seen = 0;
    for (int op = 0; op < 256; op++) {
        char bytes[8] = {(char)op}, text[80];
        size_t i = 0;
        while (i < n_refused && refused[i].op != op) i++;
        if (memchr(known, op, sizeof known - 1)) {
            machine x;
            (void)run(&x, bytes, 8);
            assert_null(strstr(x.err.msg, "is refused"));
            assert_null(strstr(x.err.msg, "is no opcode at byte 1000"));
            stop(&x);
        } else if (i < n_refused) {
            snprintf(text, sizeof text,
                     "opcode %s is refused: a state dict needs none at byte 1000", refused[i].name);
            refuse(bytes, 8, ASH_EUNSUPPORTED, text);
            seen++;
        } else {
            snprintf(text, sizeof text, "0x%02x is no opcode at byte 1000", op);
            refuse(bytes, 8, ASH_EFORMAT, text);
        }
    }
    assert_int_equal(seen, n_refused);
}

static void test_malformed(void **state)
{
    REFUSE("", ASH_EFORMAT, "cut: 1 bytes are needed, 0 are left at byte 1000");
    REFUSE("\x80", ASH_EFORMAT, "cut");
    REFUSE("\x80\x06.", ASH_EUNSUPPORTED, "protocol 6 is not known at byte 1000");
    REFUSE("\x80\x02.", ASH_EFORMAT, "an opcode finds no value on the stack at byte 1002");
    REFUSE("NN.", ASH_EFORMAT, "STOP with 1 more values on the stack");
    REFUSE("(.", ASH_EFORMAT, "finds no value on the stack");
    REFUSE("t.", ASH_EFORMAT, "an opcode finds no mark on the stack");
    REFUSE("](N", ASH_EFORMAT, "cut");
    REFUSE("N(\x85.", ASH_EFORMAT, "finds no value on the stack");
    REFUSE("N\x86.", ASH_EFORMAT, "finds no value on the stack");
    REFUSE("NN\x87.", ASH_EFORMAT, "finds no value on the stack");
    REFUSE("NNa.", ASH_EFORMAT, "an opcode finds no list to add to");
    REFUSE("](NNs.", ASH_EFORMAT, "an opcode finds no dict to add to");
    REFUSE("NNs.", ASH_EFORMAT, "finds no value on the stack");
    REFUSE("}(Nu.", ASH_EFORMAT, "a key without a value");
    REFUSE("(u.", ASH_EFORMAT, "finds no dict to add to");
    REFUSE("((u.", ASH_EFORMAT, "finds no dict to add to");
    REFUSE(")(Ne.", ASH_EFORMAT, "finds no list to add to");
    REFUSE("q\0.", ASH_EFORMAT, "finds no value on the stack");
    REFUSE("(q\0.", ASH_EFORMAT, "finds no value on the stack");
    REFUSE("Nq\1.", ASH_EFORMAT, "memo 1 is put after 0");
    REFUSE("Nr\xff\xff\xff\xff.", ASH_EFORMAT, "memo 4294967295 is put after 0");
    REFUSE("h\0.", ASH_EFORMAT, "memo 0 is not set");
    REFUSE("j\xff\xff\xff\xff.", ASH_EFORMAT, "memo 4294967295 is not set");
    REFUSE("X\xff\xff\xff\xffz.", ASH_EFORMAT, "cut: 4294967295 bytes are needed, 2 are left");
    REFUSE("X\1\0\0\0\xff.", ASH_EFORMAT, "a string is not UTF-8");
    REFUSE("U\5abc", ASH_EFORMAT, "cut");
    REFUSE("\x8a\xff.", ASH_EFORMAT, "cut");
    REFUSE("J\1\2", ASH_EFORMAT, "cut");
    REFUSE("ctorch\nSize", ASH_EFORMAT, "cut in the name of a global");
    REFUSE("ctorch", ASH_EFORMAT, "cut in the name of a global");
    REFUSE("NN\x85R.", ASH_EFORMAT, "REDUCE must call a global");
    REFUSE("ctorch\nSize\nNR.", ASH_EFORMAT, "a call's arguments must be a tuple");
    REFUSE("NNb.", ASH_EUNSUPPORTED, "BUILD of anything but a dict's state is refused");
    REFUSE("}Nb.", ASH_EUNSUPPORTED, "BUILD of anything but a dict's state is refused");
    REFUSE("ctorch\nfloat32\n}b.", ASH_EUNSUPPORTED,
           "BUILD of anything but a dict's state is refused");
}

/* What scanners look for: none of it is run, whatever way it is asked for. */
static void test_malicious(void **state)
{
#define CALLED "only tensors are built, nothing is called"
    REFUSE("\x80\x02"
           "cos\nsystem\nX\2\0\0\0id\x85R.",
           ASH_EUNSUPPORTED, "global 'os.system' is refused: " CALLED " at byte 1002");
    REFUSE("cposix\nsystem\n", ASH_EUNSUPPORTED, "global 'posix.system' is refused");
    REFUSE("c__builtin__\neval\n", ASH_EUNSUPPORTED, "global '__builtin__.eval' is refused");
    REFUSE("cbuiltins\nexec\n", ASH_EUNSUPPORTED, "global 'builtins.exec' is refused");
    REFUSE("cbuiltins\ngetattr\n", ASH_EUNSUPPORTED, "global 'builtins.getattr' is refused");
    REFUSE("csubprocess\nPopen\n", ASH_EUNSUPPORTED, "global 'subprocess.Popen' is refused");
    REFUSE("c_codecs\nencode\n", ASH_EUNSUPPORTED, "global '_codecs.encode' is refused");
    REFUSE("cnumpy.core.multiarray\n_reconstruct\n", ASH_EUNSUPPORTED,
           "multiarray._reconstruct' is refused");
    REFUSE("ctorch.hub\nload\n", ASH_EUNSUPPORTED, "global 'torch.hub.load' is refused");
    REFUSE("ctorch\nload\n", ASH_EUNSUPPORTED, "global 'torch.load' is refused");
    REFUSE("ctorch._utils\n_rebuild_sparse_tensor\n", ASH_EUNSUPPORTED,
           "_rebuild_sparse_tensor' is refused");
    REFUSE("ctorch._utils\n_rebuild_qtensor\n", ASH_EUNSUPPORTED, "_rebuild_qtensor' is refused");
    REFUSE("ctorch\nQInt8Storage\n", ASH_EUNSUPPORTED, "global 'torch.QInt8Storage' is refused");
    REFUSE("ctorch.Size\n\n", ASH_EUNSUPPORTED, "global 'torch.Size.' is refused");
    REFUSE("c\ntorch.Size\n", ASH_EUNSUPPORTED, "global '.torch.Size' is refused");
    REFUSE("ctorch \nSize\n", ASH_EUNSUPPORTED, "global 'torch .Size' is refused");
    REFUSE("ctorch\0\nSize\n", ASH_EUNSUPPORTED, "global 'torch?.Size' is refused");
    REFUSE("c\x1b[31m\n\xff\n", ASH_EUNSUPPORTED, "global '?[31m.?' is refused");
    REFUSE("(S'id'\nios\nsystem\n.", ASH_EUNSUPPORTED, "opcode STRING is refused");
    REFUSE("(ios\nsystem\n.", ASH_EUNSUPPORTED, "opcode INST is refused");
    REFUSE("X\2\0\0\0osX\6\0\0\0system\x93.", ASH_EUNSUPPORTED, "opcode STACK_GLOBAL is refused");
    REFUSE("\x82\1.", ASH_EUNSUPPORTED, "opcode EXT1 is refused");
    /* allowed names, used as what they are not */
    REFUSE("ctorch\nFloatStorage\n)R.", ASH_EUNSUPPORTED, "torch.FloatStorage is not called");
    REFUSE("ctorch\nfloat32\n)R.", ASH_EUNSUPPORTED, "torch.float32 is not called");
    REFUSE("ctorch.storage\nUntypedStorage\n)R.", ASH_EUNSUPPORTED, "UntypedStorage is not called");
    REFUSE("ctorch.nn.parameter\nParameter\n)\x81.", ASH_EUNSUPPORTED,
           "NEWOBJ of anything but OrderedDict()");
    REFUSE("N)\x81.", ASH_EUNSUPPORTED, "NEWOBJ of anything but OrderedDict()");
    REFUSE("ccollections\nOrderedDict\nN\x85\x81.", ASH_EUNSUPPORTED,
           "NEWOBJ of anything but OrderedDict()");
    REFUSE("ccollections\nOrderedDict\nN\x85R.", ASH_EFORMAT,
           "must be given nothing or a list of pairs");
    REFUSE("ccollections\nOrderedDict\n](Ne\x85R.", ASH_EFORMAT,
           "must be given nothing or a list of pairs");
    REFUSE("ccollections\nOrderedDict\n]]NaaN\x86R.", ASH_EFORMAT,
           "must be given nothing or a list of pairs");
    REFUSE("ctorch\nSize\n]\x85R.", ASH_EFORMAT,
           "torch.Size must be given a tuple of whole numbers");
    REFUSE("ctorch\nSize\nN\x85\x85R.", ASH_EFORMAT,
           "torch.Size must be given a tuple of whole numbers");
    REFUSE("ctorch.nn.parameter\nParameter\n)R.", ASH_EFORMAT, "Parameter must be given a tensor");
    REFUSE("ctorch._utils\n_rebuild_parameter\nNNN\x87R.", ASH_EFORMAT, "must be given a tensor");
}

/* ---- storages and tensors -----------------------------------------------------------------------
 */

static void test_storages(void **state)
{
#define P "(X\7\0\0\0storage"
#define CLS "ctorch\nHalfStorage\n"
#define KEY                                                                                        \
    "X\1\0\0\0k"                                                                                   \
    "X\3\0\0\0cpu"
    machine x;
    RUN(&x, P CLS KEY "K\6tQ.");
    assert_int_equal(x.v.kind, ASH_PICKLE_STORAGE);
    assert_int_equal(x.v.storage->dtype, ASH_DTYPE_F16);
    assert_int_equal(x.v.storage->n, 6);
    assert_int_equal(x.v.storage->root->bytes, 12);
    assert_ptr_equal(ash_pickle_find_root(&x.m, ASH_STR("k")), x.v.storage->root);
    assert_null(ash_pickle_find_root(&x.m, ASH_STR("l")));
    stop(&x);
    RUN(&x, P CLS KEY "K\6tQ" P "ctorch\nShortStorage\n" KEY
                      "K\6tQ\x86."); /* the same bytes, another type */
    assert_ptr_equal(x.v.list->v[0].storage->root, x.v.list->v[1].storage->root);
    stop(&x);
    REFUSE(P CLS KEY "K\6tQ" P CLS KEY "K\7tQ\x86.", ASH_EFORMAT,
           "storage 'k' has 14 bytes here and 12 before at byte");
    REFUSE("NQ.", ASH_EFORMAT, "a persistent id must be a storage's 5 or 6 fields");
    REFUSE(")Q.", ASH_EFORMAT, "a persistent id must be a storage's 5 or 6 fields");
    REFUSE("X\7\0\0\0storageQ.", ASH_EFORMAT, "a persistent id must be a storage's 5 or 6 fields");
    REFUSE("(X\7\0\0\0stoRage" CLS KEY "K\6tQ.", ASH_EFORMAT, "must be a storage's 5 or 6 fields");
    REFUSE(P CLS KEY "K\6NNtQ.", ASH_EFORMAT, "must be a storage's 5 or 6 fields");
    REFUSE("(X\6\0\0\0moduleNNNtQ.", ASH_EUNSUPPORTED, "a whole module with its source is refused");
    REFUSE(P "N" KEY "K\6tQ.", ASH_EFORMAT, "a persistent id must name a class of storages");
    REFUSE(P "ctorch\nfloat32\n" KEY "K\6tQ.", ASH_EFORMAT, "must name a class of storages");
    REFUSE(P CLS "K\1NK\6tQ.", ASH_EFORMAT, "a storage's key must be a string");
    REFUSE(P CLS KEY "NtQ.", ASH_EFORMAT,
           "a storage's number of elements is negative or too large");
    REFUSE(P CLS KEY "J\xff\xff\xff\xfftQ.", ASH_EFORMAT,
           "number of elements is negative or too large");
    REFUSE(P CLS KEY "K\6)tQ.", ASH_EFORMAT, "a view of a storage must be");
    REFUSE(P CLS KEY "K\6X\1\0\0\0vK\3K\4\x87tQ.", ASH_EFORMAT, "a view of a storage must be");
}

static const struct {
    const char *module, *name, *dtype;
} types[] = {{"torch", "FloatStorage", "F32"},        {"torch", "HalfStorage", "F16"},
             {"torch", "BFloat16Storage", "BF16"},    {"torch", "DoubleStorage", "F64"},
             {"torch", "LongStorage", "I64"},         {"torch", "IntStorage", "I32"},
             {"torch", "ShortStorage", "I16"},        {"torch", "CharStorage", "I8"},
             {"torch", "ByteStorage", "U8"},          {"torch", "BoolStorage", "BOOL"},
             {"torch", "ComplexFloatStorage", "C64"}, {"torch.storage", "UntypedStorage", "U8"},
             {"torch", "UntypedStorage", "U8"}};

static void test_types(void **state)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        machine x;
        ash_buf b;
        ash_buf_init(&b, 4096);
        ash_buf_addc(&b, '(');
        pk_str(&b, "storage");
        pk_global(&b, types[i].module, types[i].name);
        pk_str(&b, "0");
        ash_buf_adds(&b, "NK\5tQ.");
        if (run(&x, b.data, b.len)) fail_msg("%s", x.err.msg);
        assert_string_equal(ash_dtype_get(x.v.storage->dtype)->name, types[i].dtype);
        stop(&x);
        ash_buf_release(&b);
    }
}

/* _rebuild_tensor_v3 with a dtype, over bytes. */
static void test_v3(void **state)
{
    static const struct {
        const char *name, *dtype;
    } dtypes[] = {{"float32", "F32"},
                  {"float16", "F16"},
                  {"bfloat16", "BF16"},
                  {"float64", "F64"},
                  {"int64", "I64"},
                  {"int32", "I32"},
                  {"int16", "I16"},
                  {"int8", "I8"},
                  {"uint8", "U8"},
                  {"bool", "BOOL"},
                  {"uint16", "U16"},
                  {"uint32", "U32"},
                  {"uint64", "U64"},
                  {"complex64", "C64"},
                  {"float8_e4m3fn", "F8_E4M3"},
                  {"float8_e5m2", "F8_E5M2"},
                  {"float8_e4m3fnuz", "F8_E4M3FNUZ"},
                  {"float8_e5m2fnuz", "F8_E5M2FNUZ"},
                  {"float8_e8m0fnu", "F8_E8M0"}};
    for (size_t i = 0; i <= sizeof dtypes / sizeof *dtypes; i++) {
        machine x;
        ash_buf b;
        bool last = i == sizeof dtypes / sizeof *dtypes;
        ash_buf_init(&b, 4096);
        pk_global(&b, "torch._utils", "_rebuild_tensor_v3");
        ash_buf_addc(&b, '(');
        pk_storage(&b, "UntypedStorage", "0", 16);
        ash_buf_adds(&b, "K");
        ash_buf_addc(&b, 0);
        ash_buf_adds(&b, "K\2\x85K\1\x85\x89N");
        pk_global(&b, "torch", last ? "FloatStorage" : dtypes[i].name);
        ash_buf_adds(&b, "tR.");
        int rc = run(&x, b.data, b.len);
        if (last) {
            assert_int_equal(rc, ASH_EFORMAT);
            assert_non_null(
                strstr(x.err.msg, "_rebuild_tensor_v3 must be given a type of elements"));
        } else {
            if (rc) fail_msg("%s", x.err.msg);
            assert_int_equal(x.v.kind, ASH_PICKLE_TENSOR);
            assert_string_equal(ash_dtype_get(x.v.tensor->dtype)->name, dtypes[i].dtype);
        }
        stop(&x);
        ash_buf_release(&b);
    }
}

static void test_tensors(void **state)
{
#define V2 "ctorch._utils\n_rebuild_tensor_v2\n("
#define STORAGE P CLS KEY "K\6tQ"
    machine x;
    RUN(&x, V2 STORAGE "K\1K\2K\3\x86K\3K\1\x86\x89NtR.");
    assert_int_equal(x.v.kind, ASH_PICKLE_TENSOR);
    assert_int_equal(x.v.tensor->offset, 1);
    assert_int_equal(x.v.tensor->size->v[1].i, 3);
    assert_int_equal(x.v.tensor->stride->v[0].i, 3);
    stop(&x);
    RUN(&x,
        "ctorch.nn.parameter\nParameter\n" V2 STORAGE "K\1))\x89NtR\x89\x86R."); /* its tensor */
    assert_int_equal(x.v.kind, ASH_PICKLE_TENSOR);
    assert_int_equal(x.v.tensor->size->n, 0);
    stop(&x);
    RUN(&x, "ctorch._utils\n_rebuild_tensor\n(" STORAGE "K\1))tR.");
    stop(&x);
#define GIVEN "must be given a storage, an offset, and as many sizes as strides"
    REFUSE(V2 "tR.", ASH_EFORMAT, "_rebuild_tensor_v2 " GIVEN);
    REFUSE(V2 STORAGE "K\1))\x89tR.", ASH_EFORMAT, GIVEN);
    REFUSE(V2 STORAGE "K\1))\x89NNNtR.", ASH_EFORMAT, GIVEN);
    REFUSE(V2 "NK\1))\x89NtR.", ASH_EFORMAT, GIVEN);
    REFUSE(V2 STORAGE "N))\x89NtR.", ASH_EFORMAT, GIVEN);
    REFUSE(V2 STORAGE "K\1K\1\x85)\x89NtR.", ASH_EFORMAT, GIVEN);
    REFUSE(V2 STORAGE "K\1N)\x89NtR.", ASH_EFORMAT, GIVEN);
    REFUSE(V2 STORAGE "K\1]]\x89NtR.", ASH_EFORMAT, GIVEN);
    REFUSE(V2 STORAGE "K\1N\x85K\1\x85\x89NtR.", ASH_EFORMAT, GIVEN);
    REFUSE("ctorch._utils\n_rebuild_tensor\n(" STORAGE "K\1))NtR.", ASH_EFORMAT, GIVEN);
    REFUSE(V2 P "ctorch\nUntypedStorage\n" KEY "K\6tQK\1))\x89NtR.", ASH_EFORMAT,
           "must be given a typed storage");
}

/* Many storages: the table of keys grows and still finds them. */
static void test_many_storages(void **state)
{
    machine x;
    ash_buf b;
    char key[16];
    ash_buf_init(&b, 1u << 20);
    ash_buf_addc(&b, '(');
    for (int i = 0; i < 1000; i++) {
        snprintf(key, sizeof key, "%d", i);
        pk_storage(&b, "ByteStorage", key, i);
    }
    ash_buf_adds(&b, "t.");
    if (run(&x, b.data, b.len)) fail_msg("%s", x.err.msg);
    assert_int_equal(x.m.n_roots, 1000);
    for (int i = 0; i < 1000; i++) {
        snprintf(key, sizeof key, "%d", i);
        assert_int_equal(ash_pickle_find_root(&x.m, ash_str_from(key))->bytes, i);
    }
    stop(&x);
    ash_buf_release(&b);
}

static void test_limits(void **state)
{
    size_t n = ASH_MAX_PICKLE_STACK + 1;
    char *p = malloc(n);
    memset(p, 'N', n);
    refuse(p, n, ASH_ELIMIT, "a stack of more than 2097152 values at byte");
    /* empty lists put into one: 32 bytes of memory for 2 of input, and here at most 64 MiB */
    p[0] = p[1] = ']';
    for (size_t i = 2; i + 1 < n; i += 2) p[i] = 'a', p[i + 1] = ']';
    refuse(p, n, ASH_ELIMIT, "values over 67108864 bytes at byte");
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),       cmocka_unit_test(test_containers),
        cmocka_unit_test(test_every_opcode), cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_malicious),    cmocka_unit_test(test_storages),
        cmocka_unit_test(test_types),        cmocka_unit_test(test_v3),
        cmocka_unit_test(test_tensors),      cmocka_unit_test(test_many_storages),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
