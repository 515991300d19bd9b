/* Every cap on input and buffers, in one list. Over a cap is an error, never a silent cut. */
#ifndef ASHLEY_BASE_LIMITS_H
#define ASHLEY_BASE_LIMITS_H

/* configuration */
#define ASH_MAX_ENV_FILE (1u << 20)        /* bytes of .env */
#define ASH_MAX_ENV_VALUE (64u << 10)      /* bytes of one value after expansion */
#define ASH_MAX_ENV_KEYS 1024
#define ASH_MAX_CONFIG_MEMORY (96u << 20)  /* heap of one configuration, catalogue or set of personas */
#define ASH_MAX_CATALOGUE_FILE (4u << 20)  /* bytes of pytorch_models.json */
#define ASH_MAX_CATALOGUE_ENTRIES 1024
#define ASH_MAX_PERSONA_FILE (1u << 20)
#define ASH_MAX_PERSONAS 1024
#define ASH_MAX_PRELOAD 64
#define ASH_MAX_MODEL_ID 256               /* bytes of a model id as a client names it */
#define ASH_MAX_DOWNLOADS 256              /* models that are paused, or that were added by name */
#define ASH_MAX_DOWNLOADS_FILE (1u << 20)  /* bytes of downloads.json */

/* JSON */
#define ASH_MAX_JSON_DEPTH 64
#define ASH_MAX_JSON_BODY (32u << 20)      /* an HTTP request body */

/* HTTP */
#define ASH_MAX_CONNECTIONS 2048
#define ASH_MAX_URL 8192
#define ASH_MAX_BODIES (256u << 20)        /* request bodies of all connections, and trees made of them */
#define ASH_MAX_BODY_CONTAINERS (1u << 17) /* arrays and objects in a body: a tree takes 100 times "{}," */
#define ASH_MAX_BODY_VALUES (1u << 20)     /* members and elements in a body */
#define ASH_MAX_STREAM_BUFFER (4u << 20)   /* bytes waiting for one client; over it the client is too slow */
#define ASH_MAX_STOPS 64
#define ASH_MAX_STOP_BYTES 1024
#define ASH_MAX_LOGIT_BIAS 1024
#define ASH_MAX_TOP_LOGPROBS 20
#define ASH_MAX_CHOICES 16                 /* "n" of a request, prompts of a completion */

/* formats */
#define ASH_MAX_DIMS 4
#define ASH_MAX_TENSORS (1u << 20)
#define ASH_MAX_TENSOR_NAME 64             /* GGUF: a name is shorter than this */
#define ASH_MAX_GGUF_KV (1u << 16)
#define ASH_MAX_GGUF_KEY 65535
#define ASH_MAX_GGUF_STRING (64u << 20)    /* one string, e.g. a template or a merges list entry */
#define ASH_MAX_GGUF_SPLITS 1024
#define ASH_MAX_HF_NAME 1024               /* bytes of a tensor's name in safetensors and PyTorch files */
#define ASH_MAX_SAFETENSORS_HEADER 100000000u /* bytes; the format's own cap */
#define ASH_MAX_SAFETENSORS_METADATA 4096  /* members of "__metadata__" */
#define ASH_MAX_ZIP_ENTRIES (1u << 21)     /* records of a PyTorch file: one a storage, and a few more */
#define ASH_MAX_PICKLE (64u << 20)         /* bytes of a state dict's pickle, without the tensors' data */
#define ASH_MAX_PICKLE_STACK (1u << 21)    /* values */
#define ASH_MAX_PICKLE_MEMO (1u << 23)
#define ASH_MAX_PICKLE_MEMORY (512u << 20) /* heap of one pickle's values */
#define ASH_MAX_SHARDS 1024                /* files of one checkpoint */
#define ASH_MAX_SHARD_INDEX (128u << 20)   /* bytes of NAME.index.json */
#define ASH_MAX_TENSOR_INDEX (1u << 30)    /* memory of a checkpoint's names, shapes and files */
#define ASH_MAX_CONFIG_FILE (8u << 20)     /* bytes of config.json, quantize_config.json, ... */
#define ASH_MAX_CONFIG_CONTAINERS (1u << 20) /* arrays and objects in such a file */
#define ASH_MAX_CONFIG_VALUES (1u << 22)   /* members and elements */
#define ASH_MAX_FOLDER_ENTRIES 65536       /* names in a checkpoint's folder */

/* text */
#define ASH_MAX_VOCAB (1u << 21)
#define ASH_MAX_TOKEN_BYTES 4096           /* bytes of one piece */
#define ASH_MAX_TEXT (64u << 20)           /* bytes tokenised in one call */
#define ASH_MAX_TEMPLATE (1u << 20)        /* bytes of template source */
#define ASH_MAX_TEMPLATE_STEPS 10000000u   /* interpreter steps of one rendering */
#define ASH_MAX_TEMPLATE_DEPTH 100         /* nesting of parser and interpreter */
#define ASH_MAX_TEMPLATE_OUTPUT (64u << 20)
#define ASH_MAX_TEMPLATE_MEMORY (256u << 20)

/* models */
#define ASH_MAX_EXPERTS 1024               /* of a layer's mixture */

/* engine */
#define ASH_MAX_SEQUENCES 256              /* sequences of one engine */
#define ASH_MAX_BATCH 512                  /* tokens of one forward */
#define ASH_MAX_DRAFT 15                   /* guessed tokens of one forward */
#define ASH_MAX_QUEUE 1024                 /* jobs of one engine that wait or run */
#define ASH_MAX_KNOWN_FILES 4096           /* records of what files hold, in the state folder */
#define ASH_MAX_KV_FILE_IDS (1u << 20)     /* tokens of a prompt whose keys and values are kept on disk */
#define ASH_MAX_KV_SLOTS (1u << 16)        /* blocks in a file of evicted keys and values */

/* hub */
#define ASH_MAX_HUB_REPO 96                /* bytes of ORG/NAME; the hub's own cap */
#define ASH_MAX_HUB_REVISION 255           /* bytes of a branch's or tag's name */
#define ASH_MAX_HUB_PATH 1024              /* bytes of a file's path in a repository */
#define ASH_MAX_HUB_FILES 65536            /* files of a repository */
#define ASH_MAX_HUB_PAGE (4u << 20)        /* bytes of one page of a listing */
#define ASH_MAX_HUB_WHOLE (16u << 20)      /* bytes of what describes a whole repository in one piece */
#define ASH_MAX_HUB_PAGES 256
#define ASH_MAX_HUB_FILE (2ull << 40)      /* bytes of one file */
#define ASH_MAX_HUB_PEEK (32u << 20)       /* bytes read of a file's head before it is fetched */
#define ASH_MAX_HUB_REDIRECTS 5
#define ASH_MAX_HUB_HEADERS (64u << 10)    /* bytes of the headers of one answer */
#define ASH_MAX_HUB_CONNECTIONS 16         /* of one fetch */
#define ASH_MAX_HUB_TOKEN 4096             /* bytes of the file that holds the token */

/* upstream */
#define ASH_MAX_UPSTREAM_BODY (64u << 20)
#define ASH_MAX_SSE_LINE (8u << 20)

#endif
