// Kubernetes' own reading and writing of values at rest, asked by JSON lines on standard input.
//
// The first line out names the release of k8s.io/apiserver. Then each request is answered by one line, in order. A
// configuration is loaded exactly as kube-apiserver loads the file of --encryption-provider-config, and the transformer
// of a resource is looked up as kube-apiserver looks it up; nothing here knows a format. A panic of the code under
// question is its answer, too. Entropy can be given, so that what is written can be compared byte by byte.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/klog/v2"
)

type request struct {
	Config    string `json:"config"`
	Reload    bool   `json:"reload"`    // --encryption-provider-config-automatic-reload
	KMSv1     bool   `json:"kmsv1"`     // the feature gate of that name
	Direction string `json:"direction"` // load, read or write
	Resource  string `json:"resource"`
	Key       string `json:"key"`     // hex of the whole etcd key
	Value     string `json:"value"`   // hex: what is stored for read, plaintext for write
	Entropy   string `json:"entropy"` // hex: what crypto/rand gives first
	Unready   bool   `json:"unready"` // do not wait for the KMS plugins to be healthy
}

type answer struct {
	Value string `json:"value"`
	Stale bool   `json:"stale"`
	Error string `json:"error"`
}

type loadedConfig struct {
	transformers encryptionconfig.StaticTransformers
	err          error
}

// oracle keeps what it has loaded: most configurations are asked more than once, and KMS v2 has state.
type oracle struct {
	folder string
	loaded map[string]loadedConfig
	kmsv1  string
}

func (o *oracle) load(ask request) loadedConfig {
	gate := fmt.Sprintf("KMSv1=%t", ask.KMSv1)
	if gate != o.kmsv1 {
		if err := utilfeature.DefaultMutableFeatureGate.Set(gate); err != nil {
			return loadedConfig{err: err}
		}
		o.kmsv1 = gate
	}
	name := fmt.Sprintf("%s %t %s", gate, ask.Reload, ask.Config)
	if found, ok := o.loaded[name]; ok {
		return found
	}
	made := o.loadAnew(ask)
	if ask.Direction != "load" {
		o.loaded[name] = made
	}
	return made
}

func (o *oracle) loadAnew(ask request) loadedConfig {
	path := filepath.Join(o.folder, "config.yaml")
	if err := os.WriteFile(path, []byte(ask.Config), 0o600); err != nil {
		return loadedConfig{err: err}
	}
	ctx, cancel := context.WithCancel(context.Background())
	if ask.Direction == "load" {
		cancel() // or the first question to a KMS v2 plugin that is not there takes its whole timeout
	}
	config, err := encryptionconfig.LoadEncryptionConfig(ctx, path, ask.Reload, "oracle")
	if err != nil || ask.Direction == "load" {
		cancel()
		return loadedConfig{err: err}
	}
	// A KMS v2 provider has no key before its plugin was asked. kube-apiserver waits for it in the same way.
	health := httpRequest()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		err = nil
		for _, check := range config.HealthChecks {
			if one := check.Check(health); one != nil {
				err = fmt.Errorf("KMS plugin is not healthy: %w", one)
			}
		}
		if err == nil {
			break
		}
		if ask.Unready {
			return loadedConfig{transformers: config.Transformers}
		}
	}
	if err != nil {
		cancel()
	}
	return loadedConfig{transformers: config.Transformers, err: err}
}

func httpRequest() *http.Request {
	made, err := http.NewRequest(http.MethodGet, "/healthz", nil)
	if err != nil {
		panic(err)
	}
	return made
}

func (o *oracle) answer(ask request) (out answer) {
	defer func() {
		if reason := recover(); reason != nil {
			out = answer{Error: fmt.Sprintf("panic: %v", reason)}
		}
	}()
	loaded := o.load(ask)
	if loaded.err != nil {
		return answer{Error: loaded.err.Error()}
	}
	if ask.Direction == "load" {
		return answer{}
	}
	key, keyErr := hex.DecodeString(ask.Key)
	given, valueErr := hex.DecodeString(ask.Value)
	entropy, entropyErr := hex.DecodeString(ask.Entropy)
	if keyErr != nil || valueErr != nil || entropyErr != nil {
		return answer{Error: "oracle: not hex"}
	}
	transformer := loaded.transformers.TransformerForResource(schema.ParseGroupResource(ask.Resource))
	var result []byte
	var stale bool
	var err error
	switch ask.Direction {
	case "read":
		result, stale, err = transformer.TransformFromStorage(context.Background(), given, value.DefaultContext(key))
	case "write":
		system := rand.Reader
		rand.Reader = io.MultiReader(bytes.NewReader(entropy), system)
		defer func() { rand.Reader = system }()
		result, err = transformer.TransformToStorage(context.Background(), given, value.DefaultContext(key))
	default:
		err = fmt.Errorf("oracle: no direction %q", ask.Direction)
	}
	if err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Value: hex.EncodeToString(result), Stale: stale}
}

func release() string {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if module.Path == "k8s.io/apiserver" {
			return strings.Replace(module.Version, "v0.", "1.", 1)
		}
	}
	return "unknown"
}

func run() error {
	klog.SetLogger(logr.Discard()) // it logs each value that does not open
	folder, err := os.MkdirTemp("", "oracle")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	o := &oracle{folder: folder, loaded: map[string]loadedConfig{}}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	if err := out.Encode(map[string]string{"release": release()}); err != nil {
		return err
	}
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		var ask request
		if err := json.Unmarshal(line, &ask); err != nil {
			return err
		}
		if err := out.Encode(o.answer(ask)); err != nil {
			return err
		}
	}
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(1)
	}
}
