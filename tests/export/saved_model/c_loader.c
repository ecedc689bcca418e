/* Runs signatures of a SavedModel as TF Serving's loader does: C++ TensorFlow, tag "serve", no Python at all.
 *
 *     c_loader MODEL_DIR SIGNATURE FILE... [-- SIGNATURE FILE...]...
 *
 * A batch of FILEs goes into the signature's only input: their bytes where it takes strings, their pixels (binary PPM,
 * all of one size) where it takes uint8. One session runs all of them. Prints one line of JSON a signature: of each
 * output its shape and values, or the error's code and message. Exit code 1: the model could not be loaded.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

#define MOST 64 /* files of a batch, outputs of a signature */

static void fail(const char *what, const char *detail) {
  fprintf(stderr, "c_loader: %s: %s\n", what, detail);
  exit(1);
}

/* --- protocol buffers: as much as it takes to find a signature's tensors in a MetaGraphDef --- */

typedef struct {
  const uint8_t *at, *end;
} Bytes;

typedef struct {
  uint64_t number, value; /* value: of varints */
  Bytes body;             /* of strings and messages */
} Field;

static uint64_t read_varint(Bytes *from) {
  uint64_t value = 0;
  for (int shift = 0; from->at < from->end && shift < 64; shift += 7) {
    uint8_t byte = *from->at++;
    value |= (uint64_t)(byte & 0x7f) << shift;
    if (!(byte & 0x80)) return value;
  }
  fail("the meta graph is cut short", "varint");
  return 0;
}

static int next_field(Bytes *from, Field *field) {
  if (from->at >= from->end) return 0;
  uint64_t tag = read_varint(from), length = 0;
  field->number = tag >> 3;
  switch (tag & 7) {
    case 0: field->value = read_varint(from); return 1;
    case 1: length = 8; break;
    case 2: length = read_varint(from); break;
    case 5: length = 4; break;
    default: fail("the meta graph is not as expected", "wire type");
  }
  if (length > (uint64_t)(from->end - from->at)) fail("the meta graph is cut short", "length");
  field->body = (Bytes){from->at, from->at + length};
  from->at += length;
  return 1;
}

static int find(Bytes message, uint64_t number, Field *field) {
  while (next_field(&message, field))
    if (field->number == number) return 1;
  return 0;
}

static char *text(Bytes bytes) {
  size_t length = (size_t)(bytes.end - bytes.at);
  char *copy = calloc(length + 1, 1);
  memcpy(copy, bytes.at, length);
  return copy;
}

typedef struct {
  char *key;
  TF_Output tensor;
  int dtype;
} Named;

/* Fills `all` from map<string, TensorInfo>: field `number` of a SignatureDef. */
static int named_tensors(Bytes signature, uint64_t number, TF_Graph *graph, Named *all) {
  int count = 0;
  Field entry, part;
  while (next_field(&signature, &entry)) {
    if (entry.number != number) continue;
    if (count == MOST) fail("too many tensors", "in a signature");
    Named *named = &all[count++];
    if (!find(entry.body, 1, &part)) fail("a tensor has no key", "");
    named->key = text(part.body);
    if (!find(entry.body, 2, &part)) fail("a tensor has no TensorInfo", named->key);
    Bytes info = part.body;
    named->dtype = find(info, 2, &part) ? (int)part.value : 0;
    if (!find(info, 1, &part)) fail("a tensor has no name", named->key);
    char *name = text(part.body), *colon = strrchr(name, ':');
    named->tensor.index = colon ? atoi(colon + 1) : 0;
    if (colon) *colon = 0;
    named->tensor.oper = TF_GraphOperationByName(graph, name);
    if (!named->tensor.oper) fail("the graph lacks the tensor", name);
    free(name);
  }
  return count;
}

static int find_signature(const TF_Buffer *meta_graph, const char *wanted, Bytes *signature) {
  Bytes all = {meta_graph->data, (const uint8_t *)meta_graph->data + meta_graph->length};
  Field entry, part;
  while (next_field(&all, &entry)) {
    if (entry.number != 5 || !find(entry.body, 1, &part)) continue; /* 5: signature_def */
    char *name = text(part.body);
    int same = strcmp(name, wanted) == 0;
    free(name);
    if (same && find(entry.body, 2, &part)) {
      *signature = part.body;
      return 1;
    }
  }
  return 0;
}

/* --- tensors --- */

static uint8_t *read_file(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  if (!file) fail("can't open", path);
  fseek(file, 0, SEEK_END);
  *size = (size_t)ftell(file);
  rewind(file);
  uint8_t *content = malloc(*size + 1);
  if (fread(content, 1, *size, file) != *size) fail("can't read", path);
  content[*size] = 0;
  fclose(file);
  return content;
}

static TF_Tensor *strings_of(char **paths, int count) {
  int64_t shape[1] = {count};
  TF_Tensor *tensor = TF_AllocateTensor(TF_STRING, shape, 1, (size_t)count * sizeof(TF_TString));
  TF_TString *strings = TF_TensorData(tensor);
  for (int i = 0; i < count; i++) {
    size_t size;
    uint8_t *content = read_file(paths[i], &size);
    TF_StringInit(&strings[i]);
    TF_StringCopy(&strings[i], (const char *)content, size);
    free(content);
  }
  return tensor;
}

static TF_Tensor *pixels_of(char **paths, int count) {
  TF_Tensor *tensor = NULL;
  int64_t shape[4] = {count, 0, 0, 3};
  for (int i = 0; i < count; i++) {
    size_t size;
    uint8_t *content = read_file(paths[i], &size);
    long width, height;
    int header = 0;
    if (sscanf((char *)content, "P6 %ld %ld 255%n", &width, &height, &header) != 2 || !header)
      fail("must be a binary PPM", paths[i]);
    size_t bytes = (size_t)(width * height * 3);
    if (size - (size_t)header - 1 != bytes) fail("must hold width x height pixels", paths[i]);
    if (!tensor) {
      shape[1] = height, shape[2] = width;
      tensor = TF_AllocateTensor(TF_UINT8, shape, 4, bytes * (size_t)count);
    }
    if (shape[1] != height || shape[2] != width) fail("must be of the size of the first", paths[i]);
    memcpy((uint8_t *)TF_TensorData(tensor) + (size_t)i * bytes, content + header + 1, bytes);
    free(content);
  }
  return tensor;
}

/* --- JSON --- */

static void print_bytes(const char *text, size_t count) {
  putchar('"');
  for (const char *end = text + count; text < end; text++) {
    unsigned char c = (unsigned char)*text;
    if (c == '"' || c == '\\') printf("\\%c", c);
    else if (c < 0x20) printf("\\u%04x", c);
    else putchar(c);
  }
  putchar('"');
}

static void print_text(const char *text) { print_bytes(text, strlen(text)); }

static void print_tensor(const char *name, const TF_Tensor *tensor) {
  int is_text = TF_TensorType(tensor) == TF_STRING;
  if (!is_text && TF_TensorType(tensor) != TF_FLOAT) fail("an output must be float32 or string", name);
  print_text(name);
  printf(": {\"shape\": [");
  for (int i = 0; i < TF_NumDims(tensor); i++) printf("%s%lld", i ? ", " : "", (long long)TF_Dim(tensor, i));
  printf("], \"values\": [");
  const float *values = TF_TensorData(tensor);
  const TF_TString *texts = TF_TensorData(tensor);
  for (int64_t i = 0; i < TF_TensorElementCount(tensor); i++) {
    printf("%s", i ? ", " : "");
    if (is_text) print_bytes(TF_StringGetDataPointer(&texts[i]), TF_StringGetSize(&texts[i]));
    else printf("%.9g", values[i]);
  }
  printf("]}");
}

/* --- */

static void run(TF_Session *session, TF_Graph *graph, const TF_Buffer *meta_graph, const char *name, char **files,
                int count) {
  Bytes signature;
  if (!find_signature(meta_graph, name, &signature)) fail("the model lacks the signature", name);
  Named inputs[MOST], outputs[MOST];
  int taken = named_tensors(signature, 1, graph, inputs), given = named_tensors(signature, 2, graph, outputs);
  if (taken != 1 || !given || !count || count > MOST) fail("one input, outputs and files are wanted", name);
  TF_Tensor *input = inputs[0].dtype == TF_STRING ? strings_of(files, count) : pixels_of(files, count);
  if (inputs[0].dtype != (int)TF_TensorType(input)) fail("the input must be string or uint8", inputs[0].key);

  TF_Output fetches[MOST];
  TF_Tensor *values[MOST] = {NULL};
  for (int i = 0; i < given; i++) fetches[i] = outputs[i].tensor;
  TF_Status *status = TF_NewStatus();
  TF_SessionRun(session, NULL, &inputs[0].tensor, &input, 1, fetches, values, given, NULL, 0, NULL, status);
  printf("{\"signature\": ");
  print_text(name);
  if (TF_GetCode(status) != TF_OK) {
    printf(", \"code\": %d, \"message\": ", (int)TF_GetCode(status));
    print_text(TF_Message(status));
  } else {
    printf(", \"outputs\": {");
    for (int i = 0; i < given; i++) {
      if (i) printf(", ");
      print_tensor(outputs[i].key, values[i]);
      TF_DeleteTensor(values[i]);
    }
    printf("}");
  }
  printf("}\n");
  TF_DeleteStatus(status);
  TF_DeleteTensor(input);
}

int main(int argc, char **argv) {
  if (argc < 4) fail("usage", "c_loader MODEL_DIR SIGNATURE FILE... [-- SIGNATURE FILE...]...");
  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_Buffer *meta_graph = TF_NewBuffer();
  TF_SessionOptions *options = TF_NewSessionOptions();
  const char *tags[] = {"serve"};
  TF_Session *session =
      TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, meta_graph, status);
  if (TF_GetCode(status) != TF_OK) fail("the model can't be loaded", TF_Message(status));
  for (int at = 2; at < argc;) {
    int end = at;
    while (end < argc && strcmp(argv[end], "--") != 0) end++;
    run(session, graph, meta_graph, argv[at], argv + at + 1, end - at - 1);
    at = end + 1;
  }
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteBuffer(meta_graph);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
