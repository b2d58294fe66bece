// Vault's own transit engine on loopback, without the rest of Vault: a judge in tests, never shipped.
//
// It keeps its keys in memory and knows one token. What a mount, policies and a seal add is not here.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/sdk/logical"
)

var operations = map[string]logical.Operation{
	"GET": logical.ReadOperation, "LIST": logical.ListOperation, "DELETE": logical.DeleteOperation,
	"POST": logical.UpdateOperation, "PUT": logical.UpdateOperation,
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address")
	mount := flag.String("mount", "transit", "path of the engine")
	token := flag.String("token", "", "the only token that is accepted")
	flag.Parse()
	storage := &logical.InmemStorage{}
	system := &logical.StaticSystemView{}
	config := &logical.BackendConfig{StorageView: storage, System: system, Logger: hclog.NewNullLogger()}
	backend, err := transit.Factory(context.Background(), config)
	if err != nil {
		log.Fatal(err)
	}
	if err := backend.Initialize(context.Background(), &logical.InitializationRequest{Storage: storage}); err != nil {
		log.Fatal(err)
	}
	prefix := "/v1/" + *mount + "/"
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Vault-Token") != *token {
			answer(w, http.StatusForbidden, map[string]any{"errors": []string{"permission denied"}})
			return
		}
		path, ours := strings.CutPrefix(r.URL.Path, prefix)
		if !ours {
			answer(w, http.StatusNotFound, map[string]any{"errors": []string{"no handler for route"}})
			return
		}
		data := map[string]any{}
		decoder := json.NewDecoder(r.Body)
		decoder.UseNumber()
		_ = decoder.Decode(&data)
		request := &logical.Request{Operation: operations[r.Method], Path: path, Storage: storage, Data: data}
		response, err := backend.HandleRequest(r.Context(), request)
		if status, problem := logical.RespondErrorCommon(request, response, err); problem != nil {
			answer(w, status, map[string]any{"errors": []string{problem.Error()}})
			return
		} else if status != 0 {
			answer(w, status, map[string]any{"errors": []string{}})
			return
		}
		if response == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		if status, own := response.Data[logical.HTTPStatusCode].(int); own {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			switch raw := response.Data[logical.HTTPRawBody].(type) {
			case string:
				_, _ = w.Write([]byte(raw))
			case []byte:
				_, _ = w.Write(raw)
			}
			return
		}
		answer(w, http.StatusOK, map[string]any{"data": response.Data, "warnings": response.Warnings})
	})
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	_, _ = os.Stdout.WriteString(listener.Addr().String() + "\n")
	log.Fatal(http.Serve(listener, handler))
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
